"""Workers, sweepers and a user who cancels, all at once: nothing deadlocks and nothing is done twice."""

import random
from collections import Counter

import pytest

from db.leads import LeadLost
from db.records import Step
from db.store import Store
from evaluation.result import Failed
from merging.errors import Conflict
from tests.db.crew import SIZE, Crew, each_of
from tests.db.rows import added, recipe
from tests.search.factories import create, make_spec, scored

STUDIES, TRIALS = 4, 8


def work(store: Store, number: int, names: list[str]) -> list[int]:
    """The evaluations of which this process wrote the last outcome.

    Two work, one of them a bad worker (silent, dying, leaving); one tells and hands out work; one sweeps and cancels.
    """
    draw = random.Random(number)
    if number == SIZE - 1:
        return sweep_and_cancel(store, names)
    if number == SIZE - 2:
        return tell(store, names)
    finished: list[int] = []
    while any(study.state == "running" for study in store.studies.all()):
        waiting = store.evaluations.queued()
        for id_, _ in draw.sample(waiting, len(waiting)):
            worker = f"w{number}.{draw.randrange(3)}"
            lease = store.evaluations.claim(id_, worker, -1 if number and draw.random() < 0.3 else 60)
            if lease is None:
                continue
            store.evaluations.progress(lease, 1, 2)
            chance = draw.random() if number else 1.0
            if chance < 0.1:
                store.evaluations.lost_worker(worker, "died")
            elif chance < 0.2:
                store.evaluations.hand_back(worker)
            elif chance < 0.3:
                store.evaluations.finish(lease, Failed(why="disk", retryable=True))
            if store.evaluations.finish(lease, scored(1.0)):
                finished.append(id_)
    return finished


def tell(store: Store, names: list[str]) -> list[int]:
    """Lead every study: tell what is done, and ask for more, until it is told or cancelled."""
    left = {store.studies.get(name).id for name in names}
    leads = {id_: store.leads.seize(id_, "teller") for id_ in left}
    while left:
        for id_ in tuple(left):
            try:
                for trial in store.trials.ready(id_):
                    if trial.number % 2 and not trial.rung:
                        store.trials.promote(leads[id_], trial.number, 1, Step(0, 4, 1.0))
                    else:
                        store.trials.tell(leads[id_], trial.number, "complete", 1.0)
                store.evaluations.want(id_, recipe(), f"d{random.randrange(TRIALS)}", "search")
                if all(t.state != "open" for t in store.trials.all(id_)):
                    store.studies.finish(leads[id_], {"winner": 0})
                    left.discard(id_)
            except LeadLost:
                left.discard(id_)
    return []


def sweep_and_cancel(store: Store, names: list[str]) -> list[int]:
    """Sweep all the time; cancel every other study when a part of it is told."""
    doomed = set(names[::2])
    while any(study.state == "running" for study in store.studies.all()):
        store.evaluations.sweep()
        for name in tuple(doomed):
            study = store.studies.get(name)
            if store.studies.counts(study.id).get("open", 0) <= TRIALS - 3:
                doomed.discard(name)
                try:
                    store.studies.cancel(name)
                except Conflict:
                    assert study.state != "cancelled", "it was told to its end just before"
    return []


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_nothing_deadlocks_and_nothing_is_done_twice(any_store: Store, crew: Crew) -> None:
    names = [f"s{n}" for n in range(STUDIES)]
    for name in names:
        study = create(any_store, make_spec(name=name))
        lead = any_store.leads.seize(study.id, "me")
        for number in range(TRIALS):
            added(any_store, lead, number)
    finished = Counter(id_ for mine in crew.race(any_store, work, each_of(names)) for id_ in mine)
    assert set(finished.values()) <= {1}
    for study in any_store.studies.all():
        assert study.state in ("finished", "cancelled")
        assert any_store.evaluations.unfinished(study.id) == ()
        trials = any_store.trials.all(study.id)
        told = sorted(t.told_order or 0 for t in trials if t.state == "complete")
        assert told == list(range(1, len(told) + 1))
        if study.state == "finished":
            assert len(told) == TRIALS
        for trial in trials:
            scored_once = any_store.evaluations.values([trial.evaluation_id or 0]) != {}
            assert scored_once == (trial.evaluation_id in finished)
        seqs = [e.seq for e in any_store.events.after(study.id, 0)]
        assert seqs == list(range(1, len(seqs) + 1))
