"""Measuring is work like scoring: it says how far it is, and ends when nobody wants it any more."""

import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from api.creating import create_or_resume
from api.prepared import Fingerprinted, prepare
from db.records import Study
from db.store import Store
from db.trials import NewTrial
from evaluation.result import Scored
from merging.artefacts.place import VARIABLE
from merging.artefacts.shelf import MANIFEST
from merging.recipe import GroupMerge, Recipe
from search.study import load_study
from tests.search.factories import leading
from tests.workers.test_benches import whole
from workers.evaluator import Evaluator, evaluate
from workers.heart import Heart, LeaseLost
from workers.model_bench import ModelBenches
from zoo.make import Zoo
from zoo.study import write_study

LIMIT_SECONDS = 20.0
_QUICK = {name: {f"{name}.steps": 3} for name in ("learned_soup", "localize_and_stitch_trained")}
METHODS = ("fisher", "regmean_pp", "learned_soup", "localize_and_stitch_trained")


@pytest.fixture(autouse=True)
def artefacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where artefacts lie."""
    monkeypatch.setenv(VARIABLE, str(tmp_path / "artefacts"))
    return tmp_path / "artefacts"


def a_study(zoo: Zoo, store: Store, folder: Path, name: str, method: str) -> tuple[Study, Recipe]:
    """A study of a method that looks at data, and the method at its defaults."""
    evaluation, space = {"documents": 12, "holdout": 0.5}, {"methods": [method], "fixed": _QUICK.get(method, {})}
    spec = load_study(write_study(zoo, folder / f"{name}.yaml", name=name, evaluation=evaluation, space=space))
    prepared = prepare(spec, Fingerprinted(store.fingerprints))
    (start,) = [start for start in prepared.starts if start.origin == f"default:{method}"]
    return create_or_resume(prepared, store), start.recipe


def a_trial(store: Store, study: Study, recipe: Recipe) -> int:
    """A trial of the recipe; the id of its evaluation."""
    digest = recipe.digest(study.setup["fingerprints"])
    found = store.trials.add(leading(store, study.id), NewTrial(0, "test", None, recipe, digest)).evaluation_id
    assert found is not None
    return found


def half_made(artefacts: Path) -> list[str]:
    """What lies there beside locks and finished artefacts."""
    found = [path for path in artefacts.iterdir() if path.suffix != ".lock"] if artefacts.exists() else []
    return [path.name for path in found if not (path / MANIFEST).exists()]


class Interrupted:
    """A worker whose lease is lost between the first pass over data and the second.

    Attributes:
        passes: how often the measuring said that it goes on.
    """

    def __init__(self, store: Store, benches: ModelBenches, act: Callable[[], object]) -> None:
        self.passes, self._act = 0, act
        self.evaluator = Evaluator(store, benches, Heart(store, self._passed, seconds=0.3), "me")

    def _passed(self, evaluation_id: int, done: int, total: int) -> None:
        self.passes += 1
        if self.passes == 1:
            self._act()
            (heart,) = [thread for thread in threading.enumerate() if thread.name == "heart"]
            heart.join(LIMIT_SECONDS)  # it stops where the lease is gone
            assert not heart.is_alive()


@pytest.mark.parametrize("method", METHODS)
def test_a_cancelled_study_is_measured_no_further(
    nano: Zoo, store: Store, tmp_path: Path, artefacts: Path, method: str
) -> None:
    study, recipe = a_study(nano, store, tmp_path, "first", method)
    id_, benches = a_trial(store, study, recipe), ModelBenches(store, "cpu")
    worker = Interrupted(store, benches, lambda: store.studies.cancel("first"))
    assert not worker.evaluator.evaluate(id_)
    assert worker.passes == 1
    assert [trial.state for trial in store.trials.all(study.id)] == ["cancelled"]
    assert half_made(artefacts) == [] and not list(artefacts.rglob(MANIFEST))
    again, recipe = a_study(nano, store, tmp_path, "again", method)
    id_ = a_trial(store, again, recipe)
    assert Evaluator(store, benches, Heart(store), "me").evaluate(id_)
    outcome = store.evaluations.get(id_).outcome
    assert isinstance(outcome, Scored) and list(artefacts.rglob(MANIFEST))
    shutil.rmtree(artefacts)
    fresh = evaluate(ModelBenches(store, "cpu").bench(again.id), recipe, whole(store, again), lambda *_: None)
    assert isinstance(fresh, Scored)
    items = ({score.task: score.items for score in found.scores} for found in (outcome, fresh))
    assert next(items) == next(items), "nothing of what was given up is left in the live model"


def test_what_measuring_left_behind_is_handed_on(
    nano: Zoo, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, recipe = a_study(nano, store, tmp_path, "first", "fisher")
    benches, taken = ModelBenches(store, "cpu"), list[bool]()
    bench = benches.bench(study.id)
    resident = benches._resident
    assert resident is not None
    monkeypatch.setattr(resident, "_engine", SimpleNamespace(take=lambda: taken.append(True), close=lambda: None))

    def lost(done: int, total: int) -> None:
        raise LeaseLost

    with pytest.raises(LeaseLost):
        bench.build(recipe, lost)
    first = next(iter(recipe.experts))  # which the live model holds now, and the engine does not
    alone = recipe.model_copy(
        update={
            "suite": "",
            "groups": (
                GroupMerge(
                    layers=(0, recipe.layer_count),
                    method="linear",
                    weights={n: float(n == first) for n in recipe.experts},
                ),
            ),
        }
    )
    bench.build(alone, lambda done, total: None)
    assert taken == [True]
    bench.build(alone, lambda done, total: None)
    assert taken == [True], "nothing has changed since"


def test_a_lost_lease_ends_the_measuring_and_the_next_measures_anew(
    nano: Zoo, store: Store, tmp_path: Path, artefacts: Path
) -> None:
    study, recipe = a_study(nano, store, tmp_path, "first", "fisher")
    id_ = a_trial(store, study, recipe)
    worker = Interrupted(store, ModelBenches(store, "cpu"), lambda: store.evaluations.lost_worker("me", "thought dead"))
    assert not worker.evaluator.evaluate(id_) and worker.passes == 1
    assert store.evaluations.get(id_).state == "queued" and half_made(artefacts) == []
    assert Evaluator(store, ModelBenches(store, "cpu"), Heart(store), "other").evaluate(id_)
    assert isinstance(store.evaluations.get(id_).outcome, Scored) and list(artefacts.rglob(MANIFEST))


def test_how_far_the_measuring_is_is_written_with_the_evaluation(nano: Zoo, store: Store, tmp_path: Path) -> None:
    study, recipe = a_study(nano, store, tmp_path, "first", "fisher")
    id_, seen = a_trial(store, study, recipe), list[tuple[int | None, int | None]]()

    def look(evaluation_id: int, done: int, total: int) -> None:
        ends = time.monotonic() + LIMIT_SECONDS
        while (progress := store.evaluations.get(id_).progress) is None:
            assert time.monotonic() < ends
        seen.append((progress.artefacts_done, progress.artefacts_total))

    assert Evaluator(store, ModelBenches(store, "cpu"), Heart(store, look, seconds=0.03), "me").evaluate(id_)
    missing = 2 * len(nano.experts)  # likelihoods and Fisher information of each
    assert seen[0] == (0, missing) and set(seen) <= {(done, missing) for done in range(missing)} | {(None, None)}
