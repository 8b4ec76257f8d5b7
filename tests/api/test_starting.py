"""Recipes that a study names as starts: files of both kinds over its own models, or refused before anything is made."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.build import layout_of
from api.client.files import study_to_send
from api.creating import create, create_or_resume
from api.prepared import Prepared, prepare
from api.service.clerk import Clerk, ClerkSettings
from api.starting import given_recipes
from db.store import Store
from db.trials import NewTrial
from merging.errors import InvalidStudy
from merging.layers import Layout
from search.opening import open_search
from search.space import Space, make_space
from search.starts.given import Given
from search.study import StudySpec, load_study
from tests.search.factories import answers, leading
from zoo.make import Zoo
from zoo.study import write_study


@pytest.fixture
def layout(nano: Zoo) -> Layout:
    return layout_of(nano.base)


@pytest.fixture
def spec(nano: Zoo, tmp_path: Path) -> Callable[..., StudySpec]:
    def one(*recipes: str, name: str = "s", **search: Any) -> StudySpec:
        given = {"strategy": "tpe", "trials": 12, "starts": {"recipes": list(recipes)}} | search
        path = write_study(
            nano, tmp_path / f"{name}.yaml", name=name, search=given, evaluation={"documents": 12, "holdout": 0.5}
        )
        return load_study(path)

    return one


def found(spec: StudySpec, layout: Layout) -> dict[str, Given]:
    return given_recipes(spec, space_of(spec, layout), layout)


def space_of(spec: StudySpec, layout: Layout) -> Space:
    return make_space(spec, layout.layer_count, "5" * 32)


def ours(nano: Zoo, folder: Path, **changes: Any) -> str:
    """A recipe of ours over the zoo, its file's name; the first of the experts is called otherwise."""
    first, *others = nano.experts
    experts = {"mine": nano.experts[first]} | {name: nano.experts[name] for name in others}
    groups = [
        {
            "layers": [0, layout_of(nano.base).layer_count],
            "method": "task_arithmetic",
            "weights": {"mine": 0.4} | dict.fromkeys(others, 0.1),
        }
    ]
    content: dict[str, Any] = {
        "schema": "mergesearch/recipe/v1",
        "base": os.path.relpath(nano.base, folder),
        "experts": {name: os.path.relpath(path, folder) for name, path in experts.items()},
        "groups": groups,
    }
    (folder / "ours.json").write_text(json.dumps(content | changes))
    return "ours.json"


def mergekits(nano: Zoo, folder: Path, *names: str) -> str:
    """A mergekit configuration over these experts, its file's name."""
    models = [
        {"model": os.path.relpath(nano.experts[name], folder), "parameters": {"weight": 0.25 * (i + 1), "density": 0.5}}
        for i, name in enumerate(names)
    ]
    content = {"merge_method": "ties", "base_model": os.path.relpath(nano.base, folder), "models": models}
    (folder / "kit.yml").write_text(yaml.safe_dump(content | {"parameters": {"normalize": False}}))
    return "kit.yml"


def test_recipes_of_both_kinds_are_put_over_the_studys_experts(
    nano: Zoo, layout: Layout, spec: Callable[..., StudySpec], tmp_path: Path
) -> None:
    first, second, *others = nano.experts
    study = spec(ours(nano, tmp_path), mergekits(nano, tmp_path, second), "ours.json")
    given = found(study, layout)
    assert list(given) == ["recipe:ours", "recipe:kit", "recipe:ours:2"]
    assert given["recipe:ours"].groups[0].weights == {first: 0.4} | dict.fromkeys((second, *others), 0.1)
    kit = given["recipe:kit"].groups[0]
    assert kit.method == "ties" and kit.weights == {first: 0.0, second: 0.25} | dict.fromkeys(others, 0.0)
    begun, _ = open_search(study, space_of(study, layout), {"starts": {o: g.to_json() for o, g in given.items()}})
    by_origin = {s.origin: s for s in begun}
    assert by_origin["recipe:ours"].params is not None, "a point of the space"
    assert by_origin["recipe:kit"].params is None and by_origin["recipe:kit"].recipe.base == str(nano.base)
    assert "recipe:ours:2" not in by_origin, "the same once"


def test_every_strategy_tries_the_recipes_that_its_user_names(
    nano: Zoo, layout: Layout, spec: Callable[..., StudySpec], tmp_path: Path
) -> None:
    study = spec(ours(nano, tmp_path), strategy="random")
    given = {origin: one.to_json() for origin, one in found(study, layout).items()}
    begun, _ = open_search(study, space_of(study, layout), {"starts": given})
    assert [s.origin for s in begun][-1] == "recipe:ours"


def test_a_recipe_from_elsewhere_is_matched_by_name(
    nano: Zoo, layout: Layout, spec: Callable[..., StudySpec], tmp_path: Path
) -> None:
    gone = {name: f"/gone/{name}" for name in nano.experts}
    groups = [{"layers": [0, layout.layer_count], "method": "linear", "weights": dict.fromkeys(gone, 0.5)}]
    study = spec(ours(nano, tmp_path, base=f"/gone/{nano.base.name}", experts=gone, groups=groups))
    assert found(study, layout)["recipe:ours"].groups[0].weights == dict.fromkeys(nano.experts, 0.5)


WRONG: list[tuple[str, Callable[[Zoo, Layout, Path], dict[str, Any]]]] = [
    ("weights.other: other is no expert", lambda zoo, layout, folder: _other(zoo, layout, folder)),
    ("base: .* is not the base of this study", lambda zoo, layout, folder: {"base": "experts"}),
    ("groups: 1 layers are described", lambda zoo, layout, folder: {"groups": _groups(zoo, (0, 1))}),
    (
        "slices: 1 give the result other layers",
        lambda zoo, layout, folder: {
            "slices": [{"layers": [0, layout.layer_count - 1]}],
            "groups": _groups(zoo, (0, layout.layer_count - 1)),
        },
    ),
    ("tokenizer: union is not the vocabulary", lambda zoo, layout, folder: {"tokenizer": "union"}),
    ("schema: mergesearch/recipe/v9", lambda zoo, layout, folder: {"schema": "mergesearch/recipe/v9"}),
]


def _groups(zoo: Zoo, layers: tuple[int, int]) -> list[dict[str, Any]]:
    _, *others = zoo.experts
    return [{"layers": layers, "method": "task_arithmetic", "weights": {"mine": 0.4} | dict.fromkeys(others, 0.1)}]


def _other(zoo: Zoo, layout: Layout, folder: Path) -> dict[str, Any]:
    (folder / "other").mkdir()
    group = {"layers": (0, layout.layer_count), "method": "task_arithmetic", "weights": {"other": 0.4}}
    return {"experts": {"other": "other"}, "groups": [group]}


@pytest.mark.parametrize(("words", "change"), WRONG, ids=[words.partition(":")[0] for words, _ in WRONG])
def test_a_recipe_that_is_not_over_these_models_is_refused_with_its_key(
    words: str,
    change: Callable[[Zoo, Layout, Path], dict[str, Any]],
    nano: Zoo,
    layout: Layout,
    spec: Callable[..., StudySpec],
    tmp_path: Path,
) -> None:
    (tmp_path / "experts").mkdir()
    study = spec(ours(nano, tmp_path, **change(nano, layout, tmp_path)))
    with pytest.raises(InvalidStudy, match=words) as refused:
        found(study, layout)
    assert refused.value.key == "search.starts.recipes[0]" and refused.value.remedy
    assert refused.value.value == str(tmp_path / "ours.json")


def test_what_is_no_recipe_file_is_refused(layout: Layout, spec: Callable[..., StudySpec], tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match=r"search.starts.recipes\[0\].*cannot be read"):
        found(spec("nowhere.json"), layout)
    with (tmp_path / "large.json").open("wb") as large:
        large.truncate(5 << 20)
    with pytest.raises(InvalidStudy, match="too large for a recipe"):
        found(spec("large.json"), layout)


def prepared(study: StudySpec, store: Store) -> Prepared:
    return prepare(study, store.fingerprints)


def test_a_study_is_created_with_its_recipes_and_the_best_before_it_and_keeps_them(
    nano: Zoo, store: Store, spec: Callable[..., StudySpec], tmp_path: Path
) -> None:
    first = create(prepared(spec(name="first"), store), store)
    assert first.setup["starts"] == {}
    weights = dict.fromkeys(nano.experts, 0.17)
    space = prepared(spec(name="first"), store).space
    good = space.uniform("task_arithmetic", weights, {})
    lead = leading(store, first.id)
    store.trials.add(lead, NewTrial(0, "tpe", None, good, good.digest(first.setup["fingerprints"])))
    store.trials.tell(lead, 0, "complete", 0.5)

    study = prepared(spec(ours(nano, tmp_path), name="second", trials=30), store)
    second = create_or_resume(study, store)
    assert list(second.setup["starts"]) == ["recipe:ours", "earlier:first:0"]
    begun = [s.origin for s in open_search(study.spec, study.space, second.setup)[0]]
    assert begun.index("recipe:ours") < begun.index("earlier:first:0")
    store.trials.add(lead, NewTrial(1, "tpe", None, space.uniform("ties", weights, {}), "d" * 32))
    store.trials.tell(lead, 1, "complete", 0.9)
    assert create_or_resume(study, store).setup == second.setup, "what it begins with does not change"

    alone = prepared(spec(name="third", starts={"earlier": False}), store)
    assert create(alone, store).setup["starts"] == {}


def test_a_study_that_stops_by_history_is_told_whose_it_may_read(nano: Zoo, store: Store, tmp_path: Path) -> None:
    def ready(name: str, **search: Any) -> Prepared:
        given = {"strategy": "tpe", "trials": 12} | search
        evaluation = {"documents": 100, "holdout": 0.5}
        file = write_study(nano, tmp_path / f"{name}.yaml", name=name, search=given, evaluation=evaluation)
        return prepared(load_study(file), store)

    first = ready("first", prune="off")
    study, recipe = create(first, store), first.starts[0].recipe
    lead = leading(store, study.id)
    trial = store.trials.add(lead, NewTrial(0, "tpe", None, recipe, "d" * 32, rung=len(study.setup["rungs"]) - 1))
    lease = store.evaluations.claim(trial.evaluation_id or 0, "me", 60)
    assert lease is not None
    store.evaluations.finish(lease, answers(lambda recipe: 0.5)(recipe, store.evaluations.wanted(lease)))
    store.trials.tell(lead, 0, "complete", 0.5)

    def known(name: str, **search: Any) -> object:
        return create(ready(name, **search), store).setup["predecessors"]

    assert known("alike", prune="history") == [trial.evaluation_id]
    assert known("otherwise", prune="halving") == [] == known("split", prune="history", seed=1)


def test_a_service_creates_its_studies_so_too(
    nano: Zoo, store: Store, spec: Callable[..., StudySpec], tmp_path: Path
) -> None:
    clerk = Clerk(store, ClerkSettings("clerk", store.url, ("check",), tmp_path / "exports", "text"))
    sound, wrong = spec(ours(nano, tmp_path), name="sound"), spec("ours.json", "nowhere.json", name="wrong")
    few = spec("ours.json", name="few", trials=len(nano.experts) + 1)
    jobs = [store.jobs.add("check", {"spec": one.to_json()}) for one in (sound, wrong, few)]
    while clerk.once(("check",)):
        pass
    ends = [store.jobs.get(job.id, "check") for job in jobs]
    assert [end.state for end in ends] == ["done", "failed", "failed"]
    assert ends[1].problem is not None and ends[1].problem["key"] == "search.starts.recipes[1]"
    assert ends[2].problem is not None and "your recipes" in ends[2].problem["detail"]
    assert [study.name for study in store.studies.all()] == ["sound"]
    assert list(store.studies.get("sound").setup["starts"]) == ["recipe:ours"]


def test_a_study_is_sent_with_the_recipes_that_lie_beside_it(
    nano: Zoo, spec: Callable[..., StudySpec], tmp_path: Path
) -> None:
    spec(ours(nano, tmp_path), "recipes/theirs.json", name="sent")
    sent = study_to_send(tmp_path / "sent.yaml")
    assert sent.search.starts.recipes == (str(tmp_path / "ours.json"), "recipes/theirs.json"), (
        "the service has the rest"
    )
