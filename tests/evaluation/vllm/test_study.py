"""Studies on the real vLLM, from their row to their scores. Where vLLM is installed alone.

Each test starts an engine; there is room for one in a process, so those of this file begin when the one of
`test_engine.py` is gone.
"""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from api.creating import create_or_resume
from api.prepared import Fingerprinted, prepare
from db.records import Study
from db.store import Store
from evaluation.live import live_tensors, load_live
from evaluation.result import TaskScore
from evaluation.wanted import Wanted
from merging.errors import InvalidStudy
from search.study import StudySpec
from tests.evaluation.conftest import Tiny
from tests.evaluation.tiny import WORDS
from tests.evaluation.vllm.conftest import assert_near
from tests.search.factories import make_spec
from tests.workers.test_benches import whole
from workers.model_bench import ModelBenches

pytest.importorskip("vllm", reason="vLLM is not installed", exc_type=ImportError)
pytestmark = pytest.mark.filterwarnings("ignore")  # those of vLLM


def test_an_engine_that_does_not_get_all_weights_is_refused(served: Path) -> None:
    from evaluation.vllm.start import start

    live, tokenizer = load_live(served / "base", "cpu", "float32")
    tensors = live_tensors(live, load_file(served / "base" / "model.safetensors"))
    del tensors["model.layers.1.mlp.down_proj.weight"]
    with pytest.raises(InvalidStudy, match="gives other log-likelihoods than transformers"):
        start(served / "base", live, tensors, tokenizer, "cpu")


def test_a_study_is_scored_on_vllm_as_on_transformers(served: Path, tiny: Tiny, store: Store) -> None:
    benches = ModelBenches(store, "cpu")
    spec, of_vllm = study(served, tiny, store, "vllm")
    recipes = [start.recipe for start in prepare(spec, Fingerprinted(None)).starts[:2]]
    own = [score(benches, store, of_vllm, recipe) for recipe in (*recipes, recipes[0])]
    assert own[0] != own[1] and own[0] == own[2]
    _, of_transformers = study(served, tiny, store, "transformers")  # the engine makes room
    for recipe, scores in zip(recipes, own, strict=False):
        assert_near(scores, score(benches, store, of_transformers, recipe))
    benches.clear()


def study(served: Path, tiny: Tiny, store: Store, backend: str) -> tuple[StudySpec, Study]:
    """A study of the two experts."""
    evaluation = {
        "tasks": ["tiny_generate", "tiny_choice", {"name": "certain", "kind": "entropy", "path": str(prompts(served))}],
        "include_path": str(tiny.root / "tasks"),
        "documents": 20,
        "backend": backend,
    }
    models = {"base": str(served / "base"), "experts": [str(served / name) for name in "ab"]}
    spec = make_spec(name=backend, models=models, evaluation=evaluation)
    return spec, create_or_resume(prepare(spec, Fingerprinted(store.fingerprints)), store)


def prompts(served: Path) -> Path:
    """A file of prompts for an evaluator that asks the live model itself."""
    path = served / "prompts.txt"
    path.write_text("\n\n".join(f"Q {word} A" * 40 for word in WORDS))
    return path


def score(benches: ModelBenches, store: Store, study: Study, recipe: Any) -> tuple[TaskScore, ...]:
    """The recipe's candidate on the study's search documents."""
    bench, wanted = benches.bench(study.id), whole(store, study)
    bench.build(recipe, lambda *a: None)
    scores, tokens = bench.score(Wanted("search", wanted.documents, {}), lambda *_: None)
    assert tokens > 0
    return scores
