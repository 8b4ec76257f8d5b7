"""What stays in memory from study to study, and what the rehearsal promises."""

import gc
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from api.creating import create_or_resume
from api.prepared import Fingerprinted, prepare
from db.records import Study
from db.store import Store
from evaluation.live import load_live
from evaluation.result import Part, Scored
from evaluation.spec import PROXY
from evaluation.suite import Suite
from evaluation.wanted import Wanted
from merging.errors import Conflict
from merging.recipe import Recipe
from search.study import load_study
from tests.search.factories import create, make_spec
from tests.workers.service import make_recipe
from workers.benches import Measuring
from workers.evaluator import evaluate
from workers.model_bench import MOST_SUITES, ModelBenches
from workers.rehearsal import Rehearsal, RehearsalBenches
from zoo.make import Zoo
from zoo.study import write_study

DOCUMENTS = {"documents": 12, "holdout": 0.5}


def make(zoo: Zoo, store: Store, folder: Path, name: str, **changes: Any) -> Study:
    """A study of the zoo."""
    spec = load_study(write_study(zoo, folder / f"{name}.yaml", name=name, evaluation=DOCUMENTS))
    return create_or_resume(prepare(spec.model_copy(update=changes), Fingerprinted(store.fingerprints)), store)


def whole(store: Store, study: Study, part: Part = "search") -> Wanted:
    """All documents of a part, nothing known."""
    of_part = {task: of.at(-1) for (task, own), of in store.studies.documents(study.id).items() if own == part}
    return Wanted(part, of_part, {})


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> "list[weakref.ref[Any]]":
    """Every live model that is loaded. While one is loaded no other may be in memory."""
    models: list[weakref.ref[Any]] = []

    def counting(*args: Any) -> Any:
        assert all(model() is None for model in models), "two sets of models at once"
        model, tokenizer = load_live(*args)
        models.append(weakref.ref(model))
        return model, tokenizer

    monkeypatch.setattr("workers.model_bench.load_live", counting)
    return models


def test_models_are_shared_by_studies_and_make_room_for_others(
    nano: Zoo, store: Store, tmp_path: Path, loaded: "list[weakref.ref[Any]]"
) -> None:
    first, second = make(nano, store, tmp_path, "first"), make(nano, store, tmp_path, "second")
    other = make(nano, store, tmp_path, "other", dtype="bfloat16")
    benches = ModelBenches(store, "cpu")
    recipe = prepare(load_study(tmp_path / "first.yaml"), Fingerprinted(store.fingerprints)).starts[0].recipe
    outcomes = [
        evaluate(benches.bench(study.id), recipe, whole(store, study), lambda *a: None)
        for study in (first, second, first)
    ]
    assert len(loaded) == 1
    scores = [outcome.scores for outcome in outcomes if isinstance(outcome, Scored)]
    assert len(scores) == 3 and scores[0] == scores[1] == scores[2]
    benches.bench(other.id)
    assert len(loaded) == 2 and loaded[0]() is None
    assert benches.facts()["device_name"] == "cpu"
    benches.clear()
    gc.collect()
    assert loaded[1]() is None


def test_few_suites_are_kept(
    nano: Zoo, store: Store, tmp_path: Path, loaded: "list[weakref.ref[Any]]", monkeypatch: pytest.MonkeyPatch
) -> None:
    studies = [make(nano, store, tmp_path, f"study-{i}") for i in range(MOST_SUITES + 1)]
    suites: list[str] = []
    load = Suite.load

    def counting(*args: Any) -> Any:
        suites.append("loaded")
        return load(*args)

    monkeypatch.setattr(Suite, "load", counting)
    benches = ModelBenches(store, "cpu")
    for study in (*studies, *studies[2:], studies[0], studies[-1]):
        benches.bench(study.id)
    assert len(suites) == len(studies) + 1 and len(loaded) == 1


def test_a_study_whose_models_or_tasks_have_changed_has_no_bench(nano: Zoo, store: Store, tmp_path: Path) -> None:
    spec = load_study(write_study(nano, tmp_path / "s.yaml", name="s", evaluation=DOCUMENTS))
    prepared = prepare(spec, Fingerprinted(None))
    changed = {**prepared.setup["task_digests"], "zoo_add": "another"}
    for name, what, setup in (
        ("tasks", "tasks", {**prepared.setup, "suite_digest": "another"}),
        ("files", "tasks", {**prepared.setup, "task_digests": changed}),
        ("models", "models", {**prepared.setup, "companions": "another"}),
    ):
        study = store.studies.create(name, spec.to_json(), name, setup, {})
        with pytest.raises(Conflict, match=rf"the {what} of study .*have changed"):
            ModelBenches(store, "cpu").bench(study.id)


def test_a_rehearsal_scores_smoothly_and_the_same_each_time(store: Store) -> None:
    spec = make_spec(
        models={"base": "base", "experts": ["experts/a", "experts/b"]},
        evaluation={"tasks": [{"name": "t", "metric": "exact_match"}]},
    )
    study = create(store, spec)
    told: list[tuple[int, int, int]] = []

    def value(weight: float) -> float:
        bench = RehearsalBenches(store, Rehearsal(steps=4)).bench(study.id)
        bench.build(make_recipe(weight), lambda *a: None)
        (score,), tokens = bench.score(whole(store, study), lambda *a: told.append(a))
        assert score.metric == "exact_match" and score.documents == tuple(range(8)) and len(score.items) == 8
        assert score.value == pytest.approx(sum(score.items) / 8) and tokens == 8 * 32
        return score.value

    assert value(0.4) == value(0.4) != value(0.41)
    assert abs(value(0.4) - value(0.41)) < 0.01
    best = max(range(11), key=lambda i: value(i / 10))
    assert 0 < best < 10  # the best place lies inside
    assert told[:4] == [(2, 8, 64), (4, 8, 128), (6, 8, 192), (8, 8, 256)]


def test_a_rehearsal_scores_a_rung_and_then_the_rest(store: Store) -> None:
    study = create(store, make_spec(models={"base": "base", "experts": ["experts/a", "experts/b"]}))
    bench = RehearsalBenches(store, Rehearsal(steps=2)).bench(study.id)
    told: list[tuple[int, int, int]] = []
    bench.build(make_recipe(0.4), lambda *a: None)
    (every,), _ = bench.score(whole(store, study), lambda *a: None)
    (few,), tokens = bench.score(Wanted("search", {"t": (1, 4, 6)}, {}), lambda *a: None)
    assert few.items == tuple(every.items[i] for i in (1, 4, 6)) and tokens == 3 * 32
    wanted = Wanted("search", {"t": tuple(range(8))}, {"t": {1: few.items[0], 4: 0.0}})
    (joined,), tokens = bench.score(wanted, lambda *a: told.append(a))
    assert [joined.items[i] for i in range(8) if i != 4] == [every.items[i] for i in range(8) if i != 4]
    assert joined.items[4] == 0.0 and joined.value == pytest.approx(sum(joined.items) / 8)
    assert tokens == 6 * 32 and told == [(5, 8, 96), (8, 8, 192)]


def test_a_rehearsal_has_the_proxy_too(store: Store) -> None:
    spec = make_spec(evaluation={"tasks": [{"name": "t"}], "proxy": {"kind": "entropy"}})
    bench = RehearsalBenches(store, Rehearsal()).bench(create(store, spec).id)
    bench.build(make_recipe(0.4), lambda *a: None)
    (proxy,), _ = bench.score(Wanted("search", {PROXY: (0, 1)}, {}), lambda *a: None)
    assert (proxy.task, proxy.metric, len(proxy.items)) == (PROXY, "entropy", 2)


def test_a_candidate_known_whole_is_not_built(nano: Zoo, store: Store, tmp_path: Path) -> None:
    study = make(nano, store, tmp_path, "known")
    bench = ModelBenches(store, "cpu").bench(study.id)
    recipe = prepare(load_study(tmp_path / "known.yaml"), Fingerprinted(store.fingerprints)).starts[0].recipe
    wanted = whole(store, study)
    first = evaluate(bench, recipe, wanted, lambda *a: None)
    assert isinstance(first, Scored) and first.reused == 0 and first.tokens > 0
    known = {score.task: dict(zip(score.documents, score.items, strict=True)) for score in first.scores}

    class Unbuilt:
        """The same bench, which must not be built."""

        device = bench.device
        score = bench.score

        def build(self, recipe: Recipe, on_measuring: Measuring) -> None:
            raise AssertionError("it was built")

    again = evaluate(Unbuilt(), recipe, replace(wanted, known=known), lambda *a: None)
    assert isinstance(again, Scored) and again.scores == first.scores
    assert again.tokens == 0 and again.reused == sum(map(len, wanted.documents.values()))
    with pytest.raises(AssertionError, match="built"):
        evaluate(Unbuilt(), recipe, wanted, lambda *a: None)
