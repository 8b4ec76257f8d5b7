"""Who is recommended: the best, unless it is hardly better than what the study began with."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.store import Store
from evaluation.statistics import Measure
from search.luck import gain_of, room_above
from search.recommended import recommended
from tests.search.test_verdict import AGGREGATIONS, Candidate, Staged, task_score

START = [1.0] * 10 + [0.0] * 10


def flipped(wins: int, losses: int) -> list[float]:
    """The start's items, in both tasks: so many documents more right, so many of those right wrong."""
    return [0.0] * losses + [1.0] * (10 - losses) + [1.0] * wins + [0.0] * (10 - wins)


def staged(store: Store, wins: int, losses: int, **spec: Any) -> Staged:
    """A study of a poor expert, a good start, and a trial of the search."""
    found: list[Candidate] = [
        ("expert:a", [0.0] * 40, [0.0] * 8),
        ("task_arithmetic:0.3", START * 2, [1.0] * 8),
        ("random", flipped(wins, losses) * 2, [1.0] * 8),
    ]
    return Staged(store, found, **spec)


def order(study: Staged) -> list[int]:
    return [t.number for t in recommended(study.store, study.study, study.store.trials.all(study.study.id)).order]


def with_margin(study: Staged, margin: float) -> Staged:
    """The same, another margin asked for."""
    content = study.study.spec
    content["search"]["margin"] = margin
    return study


@pytest.mark.parametrize(
    ("wins", "losses", "first"),
    [(10, 0, 2), (4, 0, 2), (2, 1, 1), (5, 4, 1), (0, 0, 1), (0, 3, 1)],
    ids=["much better", "surely better", "luck", "more luck", "as good", "worse"],
)
def test_a_gain_below_two_standard_errors_is_luck(store: Store, wins: int, losses: int, first: int) -> None:
    study = staged(store, wins, losses)
    assert order(study)[0] == first and sorted(order(study)) == [0, 1, 2]
    verdict = study.verdict()
    assert verdict.winner == first and verdict.best_start is not None and verdict.best_start.trial == 1
    assert (verdict.passed_over is not None) == (wins > losses and first == 1)


def test_the_verdict_says_who_was_passed_over_and_why(store: Store) -> None:
    verdict = staged(store, 2, 1).verdict()
    found = verdict.passed_over
    assert verdict.optimism is None, "the winner was not picked for its score"
    assert found is not None and found.trial == 2 and found.difference == pytest.approx(0.05)
    assert found.stderr == pytest.approx((2 * (3 / 20 - 0.05**2) / 20) ** 0.5 / 2, rel=0.1), "of the mean of two tasks"


def test_a_study_says_how_much_is_enough(store: Store) -> None:
    study = staged(store, 2, 1)
    assert order(with_margin(study, 0.0))[0] == 2, "the best by score"
    assert order(with_margin(study, 0.5))[0] == 2
    assert order(with_margin(study, 1.0))[0] == 1
    study = staged_again(study, 4)
    assert order(with_margin(study, 2.0))[0] == 3 and order(with_margin(study, 5.0))[0] == 1


def staged_again(study: Staged, wins: int) -> Staged:
    """The same study with another trial that is surely better."""
    study.candidates = [*study.candidates, ("random", flipped(wins, 0) * 2, [1.0] * 8)]
    study.recipes[study._add(3).to_json()] = 3
    study._run()
    study._tell(3)
    return study


def test_a_start_that_breaks_a_constraint_is_not_preferred(store: Store) -> None:
    assert order(staged(store, 2, 1, broken={1: 0.5}, constraints=[{"task": "t", "min": 0.1}]))[0] == 2


def test_an_objective_that_compares_trials_takes_its_best(store: Store) -> None:
    assert order(staged(store, 2, 1, objective="borda"))[0] == 2


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=4, max_size=40))
def test_a_gain_is_the_difference_and_its_error_that_of_pairs(pairs: list[tuple[bool, bool]]) -> None:
    numbers = range(len(pairs))
    ours, theirs = ((task_score("t", numbers, [float(pair[i]) for pair in pairs]),) for i in (0, 1))
    found = gain_of(Measure("mean", {"t": 1.0}, AGGREGATIONS), ours, theirs, 0)
    assert found is not None
    differences = [a - b for a, b in pairs]
    mean = sum(differences) / len(pairs)
    error = (sum((d - mean) ** 2 for d in differences) / len(pairs) ** 2) ** 0.5
    assert found.difference == pytest.approx(mean, abs=1e-12) and found.stderr == pytest.approx(
        error, rel=0.1, abs=1e-9
    )


def test_what_is_left_above_a_candidate_is_what_it_has_wrong() -> None:
    measure = Measure("mean", {"t": 1.0, "u": 0.0}, AGGREGATIONS)
    told, graded = task_score("t", range(20), [1.0] * 18 + [0.0] * 2), task_score("u", range(2), [0.5, 0.5])
    room = room_above(measure, (told, graded), 0)
    assert room is not None and room.difference == pytest.approx(0.1)
    assert room.is_luck(2.0) and not room.is_luck(1.0), "two documents are the square root of two standard errors"
    perfect = room_above(measure, (task_score("t", range(20), [1.0] * 20),), 0)
    assert perfect is not None and (perfect.difference, perfect.stderr) == (0.0, 0.0)
    flipped = told.model_copy(update={"higher_is_better": False})
    less = room_above(measure, (flipped,), 0)
    assert less is not None and less.difference == pytest.approx(0.9)
    assert room_above(Measure("mean", {"u": 1.0}, AGGREGATIONS), (graded,), 0) is None, "who knows what is best there"
