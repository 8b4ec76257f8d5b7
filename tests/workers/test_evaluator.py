"""From an id to an outcome: whatever goes wrong on the way becomes a row that says so."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from db.records import Study
from db.store import Store
from evaluation.errors import TaskBroken
from evaluation.result import Failed, Infeasible, Scored, TaskScore
from evaluation.wanted import Wanted
from merging.errors import Conflict
from merging.recipe import Recipe
from tests.db.rows import claimed, found, on_rungs, queued, recipe
from tests.search.factories import create, make_spec, scored
from workers.benches import DeviceLost, Impossible, Measuring, Progress
from workers.evaluator import Evaluator, patiently
from workers.heart import Heart
from workers.rehearsal import Rehearsal, RehearsalBenches


class Broken:
    """Benches and a bench of which one step raises."""

    device = "broken"

    def __init__(self, step: str, error: BaseException) -> None:
        self._step, self._error = step, error

    def _at(self, step: str) -> None:
        if step == self._step:
            raise self._error

    def bench(self, study_id: int) -> "Broken":
        self._at("bench")
        return self

    def build(self, recipe: Recipe, on_measuring: Measuring) -> None:
        self._at("build")

    def score(self, wanted: Wanted, on_progress: Progress) -> tuple[tuple[TaskScore, ...], int]:
        self._at("score")
        return scored(1.0).scores, 10

    def facts(self) -> Mapping[str, object]:
        return {}


@pytest.fixture
def study(store: Store) -> Study:
    return create(store, make_spec())


def evaluator(store: Store, benches: Any = None, seconds: float = 60.0) -> Evaluator:
    """One with a rehearsal's benches, or those."""
    return Evaluator(store, benches or RehearsalBenches(store, Rehearsal()), Heart(store, seconds=seconds), "me")


def test_an_evaluation_is_done_once(store: Store, study: Study) -> None:
    id_ = queued(store, study)
    assert evaluator(store).evaluate(id_)
    first = store.evaluations.get(id_).outcome
    assert isinstance(first, Scored) and first.tokens == 8 * 32 and first.device == "rehearsal"
    assert not evaluator(store).evaluate(id_)
    assert store.evaluations.get(id_).outcome == first


@pytest.mark.parametrize("step", ["build", "score"])
@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Conflict("the models have changed"), Failed(why="the models have changed")),
        (ValueError("odd"), Failed(why="ValueError: odd")),
        (
            TaskBroken("arithmetic", "KeyError: 'x'"),
            Failed(why="task arithmetic broke on the candidate's answers (KeyError: 'x'); mend it or leave it out"),
        ),
    ],
    ids=["a known error", "an unknown error", "a task's error"],
)
def test_what_goes_wrong_is_the_outcome(
    store: Store, study: Study, step: str, error: Exception, outcome: Failed
) -> None:
    id_ = queued(store, study)
    assert evaluator(store, Broken(step, error)).evaluate(id_)
    assert store.evaluations.get(id_).outcome == outcome


def test_a_study_that_cannot_be_opened_here_is_left_to_others(store: Store, study: Study) -> None:
    first, second = queued(store, study, "d0"), queued(store, study, "d1")
    benches = Broken("bench", Conflict("no such folder here"))
    here = Evaluator(store, benches, Heart(store), "here", refusal=60.0)
    here.evaluate(first)
    assert not here.evaluate(first) and not here.evaluate(second)
    assert [(store.evaluations.get(i).state, store.evaluations.get(i).attempts) for i in (first, second)] == [
        ("queued", 1),
        ("queued", 0),
    ]
    assert store.evaluations.get(first).why == "no such folder here"
    assert evaluator(store).evaluate(first) and evaluator(store).evaluate(second)


def test_a_study_that_nobody_can_open_fails_with_the_reason(store: Store, study: Study) -> None:
    id_ = queued(store, study)
    for _ in range(3):
        evaluator(store, Broken("bench", Conflict("the models have changed"))).evaluate(id_)
    assert store.evaluations.get(id_).outcome == Failed(why="the models have changed")


def test_a_candidate_that_makes_no_sense_is_infeasible(store: Store, study: Study) -> None:
    id_ = queued(store, study)
    evaluator(store, Broken("score", Impossible("NaN"))).evaluate(id_)
    assert store.evaluations.get(id_).outcome == Infeasible(why="NaN")


@pytest.mark.parametrize("error", [MemoryError("full"), OSError("gone"), DeviceLost("CUDA error")])
def test_what_may_pass_is_tried_three_times(store: Store, study: Study, error: Exception) -> None:
    id_ = queued(store, study)
    broken = evaluator(store, Broken("build", error))
    for attempt in (1, 2, 3):
        assert store.evaluations.get(id_).state == "queued"
        if isinstance(error, DeviceLost):
            with pytest.raises(DeviceLost):
                broken.evaluate(id_)
        else:
            broken.evaluate(id_)
        assert store.evaluations.get(id_).attempts == attempt
    outcome = store.evaluations.get(id_).outcome
    assert isinstance(outcome, Failed) and str(error) in outcome.why


def test_what_is_wanted_is_asked_for_patiently(store: Store, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = queued(store, study)
    monkeypatch.setattr(store.evaluations, "wanted", away_for(2, store.evaluations.wanted))
    assert evaluator(store).evaluate(id_)
    assert isinstance(store.evaluations.get(id_).outcome, Scored)


def test_what_a_rehearsal_found_is_nothing_to_a_model_nor_to_another_study(store: Store) -> None:
    first, second = on_rungs(store, "first"), on_rungs(store, "second")
    spec = make_spec().to_json()
    for study in (first, second):
        store.studies.reopen(study.id, spec)
    for rung, known in ((0, 0), (1, 2)):
        evaluation, _ = store.evaluations.want(first.id, recipe(), "d0", "search", rung)
        assert evaluator(store).evaluate(evaluation.id)
        outcome = store.evaluations.get(evaluation.id).outcome
        assert isinstance(outcome, Scored) and outcome.reused == known
    lease = claimed(store, queued(store, second))
    assert store.evaluations.wanted(lease).reused == 0
    # nor does the study's own model go on from what the formula found, and pass it on as its own
    evaluation, _ = store.evaluations.want(first.id, recipe(), "d0", "search", 2)
    lease = claimed(store, evaluation.id)
    assert [store.evaluations.wanted(lease, rehearsal=formula).reused for formula in (False, True)] == [0, 4]
    assert store.evaluations.finish(lease, found(range(8)))
    assert store.evaluations.wanted(lease).reused == 8
    assert store.evaluations.wanted(lease, rehearsal=True).reused == 4


def away_for(times: int, then: Callable[..., Any]) -> Callable[..., Any]:
    """A call to a database that is away the first times."""
    left = [times]

    def call(*args: Any, **settings: Any) -> Any:
        if left[0]:
            left[0] -= 1
            raise OperationalError("update", None, Exception("the server is gone"))
        return then(*args, **settings)

    return call


def test_claim_and_outcome_wait_for_the_database(store: Store, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = queued(store, study)
    for name in ("claim", "finish"):
        monkeypatch.setattr(store.evaluations, name, away_for(2, getattr(store.evaluations, name)))
    assert evaluator(store).evaluate(id_)
    assert isinstance(store.evaluations.get(id_).outcome, Scored)


def test_patience_ends_and_is_not_for_bugs() -> None:
    with pytest.raises(OperationalError):
        patiently(away_for(100, int), 0.3)
    with pytest.raises(ValueError, match="invalid"):
        patiently(lambda: int("x"), 60.0)
