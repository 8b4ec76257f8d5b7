"""Processes say that they are alive; the counts say how much of everything there is."""

import os
import socket

from sqlalchemy import text

from db.records import Study
from db.session import make_engine
from db.store import Store
from tests.db.crew import Crew, each_of
from tests.db.rows import added, claimed, taken
from tests.search.factories import scored


def beat(store: Store, number: int) -> None:
    """Say so often, together with others of the same name."""
    for turn in range(5):
        store.processes.beat("w", "worker", {f"of {number}": turn})


def shift(store: Store, seconds: float) -> None:
    """Let that much time have passed since every beat."""
    engine = make_engine(store.url)
    with engine.begin() as connection:
        connection.execute(text("update process set seen_at = seen_at - :seconds"), {"seconds": seconds})
    engine.dispose()


def test_a_beat_adds_to_what_was_said(any_store: Store) -> None:
    any_store.processes.beat("w", "worker", {"pools": ["default"], "evaluation": None})
    (first,) = any_store.processes.alive("worker")
    assert (first.name, first.host, first.pid) == ("w", socket.gethostname(), os.getpid())
    any_store.processes.beat("w", "worker", {"evaluation": 7})
    any_store.processes.beat("w", "worker", {"memory_used": 5})
    (last,) = any_store.processes.alive("worker")
    assert last.detail == {"pools": ["default"], "evaluation": 7, "memory_used": 5}
    assert last.started_at == first.started_at <= first.seen_at <= last.seen_at


def test_who_is_silent_is_not_alive_and_who_leaves_is_forgotten(any_store: Store) -> None:
    for name, role in (("w2", "worker"), ("w1", "worker"), ("c", "controller")):
        any_store.processes.beat(name, role, {})
    assert [p.name for p in any_store.processes.alive("worker")] == ["w1", "w2"]
    shift(any_store, 31)
    any_store.processes.beat("w2", "worker", {})
    assert [p.name for p in any_store.processes.alive("worker")] == ["w2"]
    assert [p.name for p in any_store.processes.alive("worker", seconds=600)] == ["w1", "w2"]
    since = any_store.processes.seconds_since("controller")
    assert since is not None and 31 <= since < 600
    any_store.processes.leave("w2")
    any_store.processes.leave("w2")
    assert any_store.processes.alive("worker") == () and any_store.processes.seconds_since("clerk") is None
    shift(any_store, 100_000)
    any_store.processes.beat("new", "clerk", {})
    assert any_store.processes.seconds_since("worker") is None, "the rows of the long dead are removed"


def test_one_process_may_beat_from_many_places(any_store: Store, crew: Crew) -> None:
    crew.race(any_store, beat, each_of())
    (found,) = any_store.processes.alive("worker")
    assert found.detail == {f"of {number}": 4 for number in range(4)}


def test_the_counts(any_store: Store, study: Study) -> None:
    lead = taken(any_store, study)
    trials = [added(any_store, lead, n) for n in range(4)]
    first, second = (claimed(any_store, t.evaluation_id or 0) for t in trials[:2])
    any_store.evaluations.finish(first, scored(1.0))
    any_store.trials.tell(lead, 0, "complete", 1.0)
    any_store.evaluations.progress(second, 1, 8, 12.5)
    any_store.jobs.add("check", {})
    any_store.jobs.add("export", {}, study_id=study.id)
    any_store.jobs.claim_next(("export",), "clerk", 60)
    any_store.metrics.add(asks=2, ask_seconds=0.5)
    any_store.metrics.add(asks=1, ask_seconds=0.25)
    counts = any_store.metrics.read()
    assert counts.studies == {"running": 1} and counts.trials == {"complete": 1, "open": 3}
    assert counts.evaluations == {"done": 1, "leased": 1, "queued": 2}
    assert counts.jobs == {("check", "queued"): 1, ("export", "leased"): 1}
    assert (counts.scored, counts.tokens, counts.tokens_per_second) == (1, 10, 12.5)
    assert (counts.build_seconds, counts.score_seconds) == (0.1, 0.2)
    assert counts.counters == {"asks": 3, "ask_seconds": 0.75, "lease_expiries": 0}


def test_the_counts_of_nothing(any_store: Store) -> None:
    counts = any_store.metrics.read()
    assert counts.studies == counts.trials == counts.evaluations == {} and not counts.jobs
    assert (counts.scored, counts.tokens, counts.build_seconds, counts.tokens_per_second) == (0, 0, 0.0, 0.0)
