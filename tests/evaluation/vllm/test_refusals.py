"""What a study hears that wants vLLM where there is none, and what its backend decides. Nothing of vLLM is needed."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from api.doctor import examine
from api.run import run_file
from evaluation.spec import EvaluationSpec
from evaluation.suite import Suite
from evaluation.vllm.installed import require_backend
from merging.errors import InvalidStudy
from search.study import parse_study
from tests.evaluation.conftest import KEY, Tiny
from tests.search.factories import make_spec, study_content

ABSENT = pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
ON_VLLM = {"tasks": [{"name": "t"}], "backend": "vllm"}


@ABSENT
def test_a_study_that_wants_vllm_is_refused_where_it_is_not_installed() -> None:
    with pytest.raises(InvalidStudy, match=r"evaluation\.backend: 'vllm' is not installed; pip install vllm"):
        require_backend(EvaluationSpec.model_validate(ON_VLLM))
    require_backend(EvaluationSpec.model_validate({"tasks": [{"name": "t"}]}))


@ABSENT
def test_run_and_doctor_say_so_before_they_open_a_model(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump(study_content(evaluation=ON_VLLM)))
    with pytest.raises(InvalidStudy, match="'vllm' is not installed"):
        run_file(study, None, export=False, devices=("cpu",), home=tmp_path / "home", as_json=True)
    (found,) = (finding for finding in examine(study, tmp_path / "home") if finding.what == "study")
    assert found.state == "bad" and "'vllm' is not installed" in found.found


def test_other_backends_are_unknown() -> None:
    with pytest.raises(InvalidStudy, match=r"evaluation\.backend"):
        parse_study(study_content(evaluation={"tasks": [{"name": "t"}], "backend": "sglang"}))


def test_the_backend_may_not_change_while_a_study_lives() -> None:
    plain, named = make_spec(), make_spec(evaluation={"tasks": [{"name": "t"}], "backend": "transformers"})
    assert plain.frozen_digest() == named.frozen_digest() != make_spec(evaluation=ON_VLLM).frozen_digest()


def test_scores_of_one_backend_are_not_taken_for_those_of_another(tiny: Tiny) -> None:
    own, other = (
        Suite.load(tiny.spec("tiny_choice", backend=name), tiny.root, KEY) for name in ("transformers", "vllm")
    )
    assert own.digest != other.digest
    assert own.task_digests.keys() == other.task_digests.keys()
    assert own.task_digests["tiny_choice"] != other.task_digests["tiny_choice"]
    assert own.documents("tiny_choice", "search") == other.documents("tiny_choice", "search")
