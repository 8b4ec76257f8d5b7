"""What is done for every trial and every few seconds takes few statements, whatever the engine."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import event

from db.records import Step, Study
from db.store import Store
from tests.db.rows import added, claimed, evaluated, found, on_rungs, taken
from tests.search.factories import scored


@contextmanager
def at_most(store: Store, number: int) -> Iterator[None]:
    """The block runs so many statements at most, not counting the begin and the end of a transaction."""
    ran: list[str] = []

    def note(_1: object, _2: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            ran.append(statement)

    engine = store.studies._writer
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(engine, "before_cursor_execute", note)
    assert len(ran) <= number, ran


def test_a_trials_way(any_store: Store, study: Study) -> None:
    with at_most(any_store, 1):
        lead = taken(any_store, study)
    with at_most(any_store, 6):  # the lead, the recipe is new, evaluation, trial, event, wake-up
        trial = added(any_store, lead)
    with at_most(any_store, 1):
        assert len(any_store.evaluations.queued()) == 1
    with at_most(any_store, 1):
        lease = claimed(any_store, trial.evaluation_id or 0)
    with at_most(any_store, 2):
        assert any_store.evaluations.progress(lease, 1, 2) and any_store.evaluations.renew(lease, 60)
    with at_most(any_store, 3):  # outcome, scores, wake-up
        assert any_store.evaluations.finish(lease, scored(1.0))
    with at_most(any_store, 1):
        assert len(any_store.trials.ready(study.id)) == 1
    with at_most(any_store, 4):  # the lead, trial, event, wake-up
        any_store.trials.tell(lead, 0, "complete", 1.0)


def test_a_trials_way_over_the_rungs(any_store: Store) -> None:
    study = on_rungs(any_store)
    for name in ("a", "b", "c"):
        evaluated(any_store, on_rungs(any_store, name))
    lead = taken(any_store, study)
    trial = added(any_store, lead)
    lease = claimed(any_store, trial.evaluation_id or 0)
    with at_most(any_store, 2):  # the documents, and all that is known wherever it comes from
        wanted = any_store.evaluations.wanted(lease)
    any_store.evaluations.finish(lease, found(wanted.documents["t"], reused=wanted.reused))
    with at_most(any_store, 8):  # the lead, trial, its recipe, whether that is new, evaluation, trial, event, wake-up
        any_store.trials.promote(lead, 0, 1, Step(0, 2, 0.5))
    with at_most(any_store, 5):  # the lead, trial, its step, event, wake-up
        any_store.trials.tell(lead, 0, "pruned", None, estimate=0.5, step=Step(1, 4, 0.5))
    full = evaluated(any_store, study, rung=2)
    with at_most(any_store, 6):  # the lead, trial, the rung, trial, event, wake-up
        any_store.trials.rescore(lead, 0, full, 0.5, None)


@pytest.mark.parametrize("trials", [1, 8])
def test_rest_costs_the_same_however_much_there_is(any_store: Store, study: Study, trials: int) -> None:
    lead = taken(any_store, study)
    for number in range(trials):
        claimed(any_store, added(any_store, lead, number).evaluation_id or 0)
    _, secret = any_store.keys.create("k", ["read"])
    any_store.keys.authenticate(secret)
    with at_most(any_store, 5):
        assert any_store.leads.vacant() == any_store.evaluations.sweep() == ()
        assert any_store.evaluations.queued() == ()
        any_store.jobs.sweep()
        any_store.evaluations.seconds_to_next_expiry()
    with at_most(any_store, 4):
        assert len(any_store.evaluations.running(study.id)) == trials
        assert len(any_store.trials.all(study.id)) == trials
        any_store.leads.renew(lead, 60)
        any_store.events.after(study.id, 0)
    with at_most(any_store, 1):
        any_store.keys.authenticate(secret)
    with at_most(any_store, 9):
        any_store.metrics.read()
