"""Ingredient policies: what each finds, in which order and under which names, and what it refuses."""

import json
import os
import random
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from merging.errors import InvalidStudy
from merging.recipe import GroupMerge
from search.modelsspec import ExpertSpec
from search.space import make_space
from search.study import StudySpec, load_study, parse_study
from tests.search.factories import study_content

PAGE = Path(__file__).parent.parent.parent / "docs" / "study.md"


def model(folder: Path, file: str = "config.json") -> Path:
    """A folder that looks like a model."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text("{}")
    return folder


def loaded(folder: Path, *experts: Any, **sections: Any) -> StudySpec:
    """A study with these entries, from a file in that folder."""
    path = folder / "study.json"
    path.write_text(json.dumps(study_content(models={"base": "base", "experts": list(experts)}, **sections)))
    return load_study(path)


def found(folder: Path, *experts: Any) -> tuple[ExpertSpec, ...]:
    """What the entries stand for."""
    return loaded(folder, *experts).models.experts


def names(folder: Path, *experts: Any) -> list[str]:
    """The names of what the entries stand for."""
    return [expert.name for expert in found(folder, *experts)]


def run_with(folder: Path, *steps: int) -> Path:
    """A training run that saved itself at these steps."""
    for step in steps:
        model(folder / f"checkpoint-{step}")
    return folder


def test_a_runs_checkpoints_are_listed_in_the_order_of_their_steps(tmp_path: Path) -> None:
    run = run_with(tmp_path / "run", 1000, 90, 200)
    (run / "checkpoint-300").write_text("a file of that name is none")
    (run / "logs").mkdir()
    (run / "checkpoint-best").mkdir()
    assert found(tmp_path, {"checkpoints": "run"}) == tuple(
        ExpertSpec(path=str(run / f"checkpoint-{step}"), name=f"run-{step}", policy="checkpoints", order=step)
        for step in (90, 200, 1000)
    )


def test_a_final_model_in_the_runs_folder_is_counted_last(tmp_path: Path) -> None:
    run = model(run_with(tmp_path / "run", 10, 9))
    *_, final = experts = found(tmp_path, {"checkpoints": str(run)})
    assert [each.name for each in experts] == ["run-9", "run-10", "run-final"]
    assert (final.path, final.policy, final.order) == (str(run), "checkpoints", None)


@pytest.mark.parametrize(
    ("asked", "steps"),
    [
        ({"last": 2}, [5, 6]),
        ({"last": 99}, [1, 2, 3, 4, 5, 6]),
        ({"every": 2}, [2, 4, 6]),
        ({"every": 4}, [2, 6]),
        ({"every": 99}, [6]),
        ({"every": 2, "last": 2}, [4, 6]),  # thinned first, so that two are kept
    ],
)
def test_checkpoints_are_thinned_from_the_end(asked: dict[str, int], steps: list[int], tmp_path: Path) -> None:
    run_with(tmp_path / "run", 1, 2, 3, 4, 5, 6)
    assert [each.order for each in found(tmp_path, {"checkpoints": "run", **asked})] == steps


@given(steps=st.sets(st.integers(0, 10**6), min_size=1, max_size=8), last=st.integers(1, 9), every=st.integers(1, 9))
def test_the_newest_checkpoint_is_always_kept_and_steps_rise(steps: set[int], last: int, every: int) -> None:
    with TemporaryDirectory() as folder:
        run_with(Path(folder) / "run", *steps)
        kept = [each.order for each in found(Path(folder), {"checkpoints": "run", "last": last, "every": every})]
    rising = sorted(steps)
    assert kept[-1] == rising[-1] and len(kept) == min(last, -(-len(rising) // every))
    places = [rising.index(step) for step in kept if step is not None]
    assert all(second - first == every for first, second in pairwise(places))


@pytest.mark.parametrize("policy", ["runs", "replicas", "datasets"])
def test_a_pattern_finds_model_folders_in_natural_order(policy: str, tmp_path: Path) -> None:
    for seed in (10, 9, 1):
        model(tmp_path / "out" / f"seed{seed}")
    model(tmp_path / "out" / ".hidden")
    (tmp_path / "out" / "notes.md").write_text("no folder")
    assert found(tmp_path, {policy: "out/*"}) == tuple(
        ExpertSpec.model_validate({"path": str(tmp_path / "out" / name), "name": name, "policy": policy})
        for name in ("seed1", "seed9", "seed10")
    )


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("out/*/final", ["a", "b2", "b10"]),
        ("out/b*/f?nal", ["b2-final", "b10-final"]),
        ("out/[ab]/final", ["a"]),
        ("out/a/final", ["final"]),
        ("./out//a/../b2/final", ["final"]),
        ("*/b2/*", ["out-final"]),
    ],
)
def test_what_a_pattern_leaves_open_names_the_expert(pattern: str, wanted: list[str], tmp_path: Path) -> None:
    for name in ("b10", "a", "b2"):
        model(tmp_path / "out" / name / "final")
    (tmp_path / "out" / "c").mkdir()  # it has no `final`, so it does not fit
    assert names(tmp_path, {"runs": pattern}) == names(tmp_path, {"runs": f"{tmp_path}/{pattern}"}) == wanted


def test_a_lineage_names_each_expert_after_its_start(tmp_path: Path) -> None:
    for name in ("b", "a"):
        model(tmp_path / "via" / name)
    assert found(tmp_path, {"lineage": {"snli": "via/b", "boolq": "via/a"}}) == (
        ExpertSpec(path=str(tmp_path / "via" / "b"), name="snli", policy="lineage"),
        ExpertSpec(path=str(tmp_path / "via" / "a"), name="boolq", policy="lineage"),
    )


@pytest.mark.parametrize("file", ["config.json", "adapter_config.json", "delta.json", "1/adapter_config.json"])
def test_whatever_may_be_an_expert_is_a_model(file: str, tmp_path: Path) -> None:
    place = tmp_path / "out" / "x" / file
    model(place.parent, place.name)
    assert names(tmp_path, {"runs": "out/*"}) == ["x"]


def test_policies_stand_beside_plain_experts_in_the_order_of_the_file(tmp_path: Path) -> None:
    run_with(tmp_path / "run", 2, 10)
    model(tmp_path / "out" / "z")
    entries = ["plain/a", {"checkpoints": "run"}, {"path": "plain/b", "name": "b1"}, {"runs": "out/*"}]
    experts = found(tmp_path, *entries)
    assert [each.name for each in experts] == ["a", "run-2", "run-10", "b1", "z"]
    assert [each.policy for each in experts] == [None, "checkpoints", "checkpoints", None, "runs"]


def test_a_method_that_goes_by_order_goes_by_the_steps(tmp_path: Path) -> None:
    run_with(tmp_path / "run", 100, 9, 20)
    space = make_space(loaded(tmp_path, {"checkpoints": "run"}, space={"methods": ["ema"]}), 4)
    (group,) = space.walk(lambda dimension: dimension.low).groups
    assert isinstance(group, GroupMerge) and group.weights == {"run-9": 1.0, "run-20": 2.0, "run-100": 3.0}


def test_a_loaded_study_can_be_read_again_without_looking(tmp_path: Path) -> None:
    run_with(tmp_path / "run", 1, 2)
    spec = loaded(tmp_path, {"checkpoints": "run"}, {"lineage": {"x": "run/checkpoint-1"}})
    again = parse_study(json.loads(json.dumps(spec.to_json())))
    assert again == spec and again.frozen_digest() == spec.frozen_digest()


def test_another_checkpoint_makes_another_study_and_plain_experts_are_remembered_as_before(tmp_path: Path) -> None:
    run_with(tmp_path / "run", 1, 2)
    before = loaded(tmp_path, {"checkpoints": "run"})
    assert loaded(tmp_path, {"checkpoints": "run"}).frozen_digest() == before.frozen_digest()
    run_with(tmp_path / "run", 3)
    assert loaded(tmp_path, {"checkpoints": "run"}).frozen_digest() != before.frozen_digest()
    by_hand = [{"path": each.path, "name": each.name} for each in before.models.experts]
    assert loaded(tmp_path, *by_hand).frozen_digest() == before.frozen_digest()  # how it can be gone on with
    assert loaded(tmp_path, *reversed(by_hand)).frozen_digest() != before.frozen_digest()
    spec = parse_study(study_content())
    said = spec.to_json()["models"]["experts"][0]
    assert said == {"path": "experts/a", "name": "a", "policy": None, "order": None}
    assert spec.frozen_digest() == "8df07684095a620ec1f3647de81bfeb2"


def test_the_order_in_which_the_file_system_lists_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("x1", "x2", "x10", "x02", "y"):
        model(tmp_path / "out" / name)
        run_with(tmp_path / "run", len(os.listdir(tmp_path / "out")))
    wanted = names(tmp_path, {"runs": "out/*"}, {"checkpoints": "run"})
    listdir, chance = os.listdir, random.Random(0)

    def shuffled(place: str) -> list[str]:
        return sorted(listdir(place), key=lambda _: chance.random())

    monkeypatch.setattr(os, "listdir", shuffled)
    assert wanted[:5] == ["x1", "x02", "x2", "x10", "y"]
    for _ in range(5):
        assert names(tmp_path, {"runs": "out/*"}, {"checkpoints": "run"}) == wanted


K = "models.experts[0]"
WRONG: list[tuple[Any, list[str]]] = [
    ({"runs": "nothing/*"}, [f"{K}.runs", "'nothing/*' finds no folder", "such as runs/*"]),
    ({"runs": "nowhere"}, [f"{K}.runs", "'nowhere' finds no folder"]),
    ({"checkpoints": "empty"}, [f"{K}.checkpoints", "'empty' holds no checkpoint-STEP", "training run"]),
    ({"checkpoints": "nowhere"}, [f"{K}.checkpoints", "'nowhere'"]),
    ({"lineage": {"x": "empty"}}, [f"{K}.lineage.x", "'empty' is no model", "no config.json, adapter_config.json or"]),
    ({"lineage": {"x": "nowhere"}}, [f"{K}.lineage.x", "'nowhere' is no model"]),
    ({"runs": "mixed/*"}, [f"{K}.runs", "'mixed/*' finds 'logs', which is no model", "delta.json", "models alone"]),
    ({"runs": "mixed"}, [f"{K}.runs", "finds 'mixed', which is no model"]),
    ({"checkpoints": "half"}, [f"{K}.checkpoints", "finds 'checkpoint-2', which is no model"]),
    ({"checkpoints": "twice"}, [f"{K}.checkpoints", "'twice-5' would name two experts", "`path` and a `name`"]),
    ({"runs": "dashes/*/*"}, [f"{K}.runs", "'a-b-c' would name two experts"]),
    ({"runs": "odd/*"}, [f"{K}.runs", "'run 1' cannot name an expert", "rename the folder"]),
    ({"lineage": {"a b": "good"}}, [f"{K}.lineage", "'a b' cannot name an expert"]),
    ({"runs": "**/good"}, [f"{K}.runs", "'**'", "write each level out"]),
    ({"runs": "*/../good"}, [f"{K}.runs", "'..'", "write each level out"]),
    ({"runs": "g*\0"}, [f"{K}.runs", "finds no folder"]),
    ({"runs": "g\0/*"}, [f"{K}.runs", "is no path"]),
    ({"runs": ""}, [f"{K}.runs", "is not valid", "pattern"]),
    ({"runs": ["a", "b"]}, [f"{K}.runs", "is not valid", "pattern"]),
    ({"lineage": {}}, [f"{K}.lineage", "NAME: FOLDER"]),
    ({"lineage": ["good"]}, [f"{K}.lineage", "NAME: FOLDER"]),
    ({"lineage": {"x": 3}}, [f"{K}.lineage.x", "3", "write a folder"]),
    ({"checkpoints": "half", "last": 0}, [f"{K}.last", "0", "1 or more"]),
    ({"checkpoints": "half", "last": None}, [f"{K}.last", "1 or more"]),
    ({"checkpoints": "half", "every": True}, [f"{K}.every", "True", "whole number"]),
    ({"checkpoints": "half", "every": 1.5}, [f"{K}.every", "1.5", "whole number"]),
    ({"checkpoints": "half", "lats": 2}, [f"{K}.lats", "unknown key", "did you mean 'last'"]),
    ({"runs": "good", "last": 2}, [f"{K}.last", "unknown key", "runs"]),
    ({"runs": "good", "path": "good"}, [f"{K}.path", "unknown key"]),
    ({"runs": "good", "datasets": "good"}, [f"{K}.datasets", "stands beside runs", "an entry of the list for each"]),
    ({"checkpoint": "half"}, [f"{K}.checkpoint", "unknown key", "did you mean 'checkpoints'"]),
    ({"name": "x"}, [f"{K}.path", "is missing"]),
    ({"path": "good", "policy": "soup"}, [f"{K}.policy", "'soup'", "lineage"]),
    ({"path": "good", "order": -1}, [f"{K}.order", "-1", "0"]),
]


@pytest.mark.parametrize(("entry", "said"), WRONG, ids=[str(wrong[0])[:40] for wrong in WRONG])
def test_what_cannot_be_is_refused_with_key_value_and_remedy(entry: Any, said: list[str], tmp_path: Path) -> None:
    for good in ("good", "mixed/a", "half/checkpoint-1", "odd/run 1", "dashes/a-b/c", "dashes/a/b-c"):
        model(tmp_path / good)
    for twin in ("5", "05"):
        model(tmp_path / "twice" / f"checkpoint-{twin}")
    for bare in ("empty", "mixed/logs", "half/checkpoint-2", "nothing"):
        (tmp_path / bare).mkdir()
    with pytest.raises(InvalidStudy) as caught:
        loaded(tmp_path, entry)
    for part in said:
        assert part in str(caught.value), str(caught.value)


@pytest.mark.parametrize("beside", ["plain/seed1", {"path": "y", "name": "seed1"}, {"replicas": "out/*"}])
@pytest.mark.parametrize("first", [True, False])
def test_a_name_that_another_expert_has_is_refused_at_the_policy(beside: Any, first: bool, tmp_path: Path) -> None:
    model(tmp_path / "out" / "seed1")
    entries = [{"runs": "out/seed*"}, beside]
    with pytest.raises(InvalidStudy, match=r"'seed1' would name two experts") as caught:
        loaded(tmp_path, *(entries if first else reversed(entries)))
    at = 0 if first or "replicas" in beside else 1
    assert caught.value.key.startswith(f"models.experts[{at}].")


def test_a_fault_of_a_later_entry_is_named_by_its_place_in_the_file(tmp_path: Path) -> None:
    run_with(tmp_path / "run", 1, 2, 3)
    with pytest.raises(InvalidStudy) as caught:
        loaded(tmp_path, {"checkpoints": "run"}, {"path": "x", "nome": "y"})
    assert caught.value.key == "models.experts[1].nome"


def test_the_number_of_experts_that_a_method_takes_is_that_of_all_found(tmp_path: Path) -> None:
    run_with(tmp_path / "run", 1, 2)
    assert len(loaded(tmp_path, {"checkpoints": "run"}, space={"methods": ["slerp"]}).models.experts) == 2
    run_with(tmp_path / "run", 3)
    with pytest.raises(InvalidStudy, match="'slerp' takes 1 to 2 experts, and the study has 3"):
        loaded(tmp_path, {"checkpoints": "run"}, space={"methods": ["slerp"]})


def test_content_without_a_place_is_not_looked_up() -> None:
    with pytest.raises(InvalidStudy, match=r"models.experts\[0\].runs: 'x/\*' is looked up only where"):
        parse_study(study_content(models={"experts": [{"runs": "x/*"}]}))


def test_a_pattern_does_not_read_the_whole_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.ingredients._MOST_LOOKED", 5)
    for one in range(3):
        model(tmp_path / "out" / str(one) / "final")
    assert len(names(tmp_path, {"runs": "out/*/final"})) == 3
    with pytest.raises(InvalidStudy, match=r"more than 5 files; begin it with more of the path"):
        names(tmp_path, {"runs": "out/*/*"})


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model(tmp_path / "closed")

    def refuse(place: str) -> list[str]:
        raise PermissionError(13, "Permission denied", place)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(InvalidStudy, match=r"'closed/\*' cannot be read \(Permission denied\)"):
        loaded(tmp_path, {"runs": "closed/*"})


PLANTED: dict[str, Callable[[Path], object]] = {
    "checkpoints": lambda root: run_with(root / "runs" / "long", *range(100, 1300, 100)),
    "runs": lambda root: [model(root / "runs" / f"seed-{seed}" / "final") for seed in range(3)],
    "replicas": lambda root: [model(root / "replicas" / str(node)) for node in range(4)],
    "datasets": lambda root: [model(root / "tuned-on" / name) for name in ("law", "code")],
    "lineage": lambda root: [model(root / "tuned" / f"math-via-{name}") for name in ("code", "law")],
}


@pytest.mark.parametrize("policy", PLANTED)
def test_every_policy_has_an_example_that_works(policy: str, tmp_path: Path) -> None:
    section = PAGE.read_text().partition("\n## Ingredients\n")[2].partition("\n## ")[0]
    examples = [yaml.safe_load(text) for text in re.findall(r"^  ```yaml\n(.*?)^  ```", section, re.M | re.S)]
    (example,) = [one for one in examples if any(policy in each for each in one["models"]["experts"])]
    PLANTED[policy](tmp_path)
    experts = found(tmp_path, *example["models"]["experts"])
    assert len(experts) >= 2 and {each.policy for each in experts} == {policy}
