"""A run from a study's row to its end, without models: workers that answer by a formula in this process."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

import api.embedded
from api.creating import require_unchanged
from api.embedded import Watcher, run_study
from api.prepared import Prepared
from db.store import FILE, Store, open_home
from db.studies import HOLDOUT_READ
from evaluation.result import Scored
from evaluation.statistics import Aggregation
from evaluation.wanted import Wanted
from merging.errors import Conflict, InvalidStudy
from merging.recipe import Recipe
from search.dispatch import InlineDispatcher
from search.space import make_space
from search.study import StudySpec
from search.verdict import Verdict
from tests.api.test_documents import suite
from tests.search.factories import LAYERS, Measured, answers, bowl, create_race, make_spec

WATCHER = Watcher(*[lambda *_: None] * 5)


class InlinePool(InlineDispatcher):
    """The pool's place, without processes."""

    def __init__(self, measured: Measured, store: Store, *_: Any) -> None:
        super().__init__(store, measured)

    def __enter__(self) -> "InlinePool":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def quality(recipe: Recipe) -> float:
    return max(0.0, 0.9 + 0.8 * bowl(recipe, {"a": 0.7, "b": 0.2, "c": 0.4}))


def halves(recipe: Recipe, wanted: Wanted) -> Scored:
    """Items that are neither right nor wrong."""
    found = answers(quality)(recipe, wanted)
    assert isinstance(found, Scored)
    half = [
        s.model_copy(update={"items": tuple(i / 2 for i in s.items), "value": fmean(s.items) / 2}) for s in found.scores
    ]
    return found.model_copy(update={"scores": tuple(half)})


def test_a_study_goes_on_only_with_what_it_was_made_of(tmp_path: Path) -> None:
    made = {"fingerprints": {"base": "f"}, "companions": "c", "suite_digest": "s", "task_digests": {"t": "1"}}
    elder = {key: made[key] for key in ("fingerprints", "companions", "suite_digest")}
    with closing(open_home(tmp_path)) as store:
        for setup in (made, elder):  # one of an earlier version wrote less down
            require_unchanged(store.studies.create(f"{len(setup)}", {}, "f", setup, {}), made)
        study = store.studies.get("4")
    with pytest.raises(Conflict, match="the tasks' data or Python files of study '4' have changed"):
        require_unchanged(study, made | {"task_digests": {"t": "2"}})


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Verdict]:
    def one(spec: StudySpec, measured: Measured) -> Verdict:
        store = open_home(tmp_path)
        study = store.studies.find(spec.name) or create_race(store, spec)
        space = make_space(spec, LAYERS)
        tasks = suite(t="mean")
        object.__setattr__(tasks.tasks[0], "aggregation", Aggregation("mean", fmean))
        prepared = Prepared(spec, tasks, {}, space, (), study.setup)
        monkeypatch.setattr(api.embedded, "Pool", partial(InlinePool, measured))
        return run_study(prepared, store, tmp_path, ("cpu",), WATCHER)

    return one


def test_a_constraint_that_does_not_go_with_the_items_ends_the_study(
    run: Callable[..., Verdict], tmp_path: Path
) -> None:
    limits = [{"negative_flips": 0.02, "against": "base"}]
    with pytest.raises(InvalidStudy, match="right or wrong"):
        run(make_spec(constraints=limits), halves)
    study = open_home(tmp_path).studies.get("test")
    assert study.state == "failed" and "right or wrong" in (study.why or "")


def test_more_trials_than_before_are_what_the_end_goes_by(run: Callable[..., Verdict], tmp_path: Path) -> None:
    def spec(trials: int) -> StudySpec:
        return make_spec(search={"strategy": "greedy_soup", "trials": trials})

    first = run(spec(6), answers(quality))
    with closing(sqlite3.connect(tmp_path / FILE)) as database, database:  # as an earlier version left it
        assert database.execute("DELETE FROM study_event WHERE kind = ?", [HOLDOUT_READ]).rowcount == 1
    second = run(spec(60), answers(quality))
    assert first.trials == 6 < second.trials < 60
    assert not first.exhausted and second.exhausted, "the soup had nothing left to try"
    assert (first.holdout_reads, second.holdout_reads) == (1, 2)
