"""Trials: added with the evaluation they need, told once, in an order without gaps, read page by page."""

import math

import pytest
from sqlalchemy.exc import NoResultFound

from db.records import Lead, Study
from db.store import Store
from db.trials import NewTrial
from tests.db.crew import Crew, each_of
from tests.db.rows import added, claimed, found, on_rungs, recipe, taken
from tests.search.factories import scored


def tell_all(store: Store, who: int, lead: Lead, numbers: list[int]) -> list[int]:
    """Tell every trial, each process its own value; the numbers of those whose value stands."""
    return [n for n in numbers if store.trials.tell(lead, n, "complete", float(who)).value == who]


def test_a_trial_waits_for_its_evaluation(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    trial = added(any_store, lead)
    twin = any_store.trials.add(lead, NewTrial(1, "tpe", {}, recipe(), "d0"))
    assert trial.evaluation_id == twin.evaluation_id, "what is scored already is not scored again"
    assert any_store.trials.ready(study.id) == ()
    any_store.evaluations.finish(claimed(any_store, trial.evaluation_id or 0), scored(1.0))
    assert [t.number for t in any_store.trials.ready(study.id)] == [0, 1]


def test_a_trial_is_told_once_and_in_order(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    for number in range(3):
        any_store.trials.add(lead, NewTrial(number, "tpe", {"x": 1.0}, None, None, "no recipe"))
    assert [t.number for t in any_store.trials.ready(study.id)] == [0, 1, 2]
    any_store.trials.tell(lead, 2, "infeasible", None)
    first = any_store.trials.tell(lead, 0, "complete", 0.5, "well")
    told = any_store.events.last(study.id)
    assert any_store.trials.tell(lead, 0, "complete", 0.9, "better") == first
    assert (first.value, first.told_order, first.why) == (0.5, 2, "well")
    assert any_store.events.last(study.id) == told, "told twice is told once"
    assert [t.number for t in any_store.trials.ready(study.id)] == [1]
    assert any_store.trials.all(study.id)[2].why == "no recipe"
    event = any_store.events.after(study.id, told - 1)[0]
    assert (event.kind, event.data) == (
        "trial.told",
        {"number": 0, "origin": "tpe", "state": "complete", "value": 0.5, "why": "well"},
    )
    with pytest.raises(NoResultFound):
        any_store.trials.tell(lead, 9, "complete", 0.5)


def test_told_by_many_at_once_the_first_word_stands_and_the_order_has_no_gaps(
    any_store: Store, study: Study, crew: Crew
) -> None:
    lead = taken(any_store, study)
    numbers = [added(any_store, lead, n).number for n in range(8)]
    won = crew.race(any_store, tell_all, each_of(lead, numbers))
    assert sorted(n for mine in won for n in mine) == numbers
    trials = any_store.trials.all(study.id)
    assert sorted(t.told_order or 0 for t in trials) == list(range(1, 9))
    told = [e.data["number"] for e in any_store.events.after(study.id, 0) if e.kind == "trial.told"]
    assert told == [t.number for t in sorted(trials, key=lambda t: t.told_order or 0)]


def test_trials_are_read_page_by_page_and_one_by_one(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    trials = [added(any_store, lead, n) for n in range(5)]
    for number in (1, 3, 4):
        trials[number] = any_store.trials.tell(lead, number, "complete", number / 10)
    page = any_store.trials.page
    assert page(study.id, None, 2) == tuple(trials[:2]) and page(study.id, 1, 2) == tuple(trials[2:4])
    assert page(study.id, 1, 9) == tuple(trials[2:]) and page(study.id, 4, 9) == ()
    assert page(study.id, 1, 1, "complete") == (trials[3],) and page(study.id, None, 9, "failed") == ()
    assert any_store.trials.get(study.id, 3) == trials[3] and any_store.trials.get(study.id, 5) is None
    assert any_store.trials.get(study.id + 1, 3) is None
    assert any_store.studies.counts(study.id) == {"open": 2, "complete": 3}


def test_the_best_trial_is_the_first_of_the_highest_value(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    assert any_store.trials.best(study.id) is None
    for number, value in enumerate((-2.0, -1.0, -1.0, -3.0)):
        added(any_store, lead, number)
        any_store.trials.tell(lead, number, "complete", value)
    added(any_store, lead, 4)
    any_store.trials.tell(lead, 4, "failed", None, "no memory")
    best = any_store.trials.best(study.id)
    assert best is not None and best.number == 1


def test_numbers_come_back_as_they_were(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    added(any_store, lead)
    value = math.nextafter(1 / 3, 1)
    assert any_store.trials.tell(lead, 0, "complete", value).value == value
    assert any_store.trials.all(study.id)[0].value == value


def test_whoever_was_scored_over_the_same_documents_is_found_in_all_studies(any_store: Store) -> None:
    def told(name: str, numbers: range, digest: str = "t1", state: str = "complete") -> list[tuple[int, int, str]]:
        """A study with those trials, each of a recipe of its own; what is to be found of them."""
        study = on_rungs(any_store, name, digest)
        lead, rows = taken(any_store, study), list[tuple[int, int, str]]()
        for number in numbers:
            evaluation = added(any_store, lead, number).evaluation_id or 0
            any_store.evaluations.finish(claimed(any_store, evaluation), found(range(8)))
            any_store.trials.tell(lead, number, state, 0.5 if state == "complete" else None)
            rows.insert(0, (evaluation, study.id, f"d{number}"))
        return rows

    first, second = told("first", range(3)), told("second", range(2, 4))
    told("elsewhere", range(4, 6), "t2")
    told("stopped", range(6, 8), state="pruned")
    assert any_store.trials.scored_over(["t1"]) == (*second, *first)
    assert any_store.trials.scored_over(["t1", "t2"]) == () == any_store.trials.scored_over([])
