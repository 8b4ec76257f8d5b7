"""Who waits is woken by a commit of somebody else's, in time, and by nothing else."""

import threading
import time
from contextlib import closing

import pytest

from db.store import Store, connect_store
from db.wakeups import CLERK, CONTROLLER, EVENT, Wakeups
from tests.search.factories import create, make_spec


def rested(store: Store, channel: str) -> Wakeups:
    """A waiter that has already been told of what was before it."""
    waiter = store.wakeups(channel)
    waiter.wait(0)
    assert not waiter.wait(0)
    return waiter


@pytest.mark.parametrize("channel", [CONTROLLER, EVENT])
def test_a_commit_wakes_at_once(any_store: Store, channel: str) -> None:
    committed: list[float] = []
    begin = threading.Event()

    def commit() -> None:
        begin.wait(30)
        with closing(connect_store(any_store.url)) as other:
            create(other, make_spec())
            committed.append(time.monotonic())

    writer = threading.Thread(target=commit)
    writer.start()
    with closing(rested(any_store, channel)) as waiter:
        begin.set()
        assert waiter.wait(30)
        woken = time.monotonic()
        writer.join(30)
        assert woken - committed[0] < 1


def test_what_was_committed_between_two_waits_wakes_the_next(any_store: Store) -> None:
    with closing(rested(any_store, CLERK)) as waiter:
        for _ in range(3):
            any_store.jobs.add("check", {})
        assert waiter.wait(30), "the connections of one process wake each other too"
        waiter.wait(0)
        assert not waiter.wait(0), "woken for all of them"


def test_without_a_commit_it_waits_its_time(any_store: Store) -> None:
    with closing(rested(any_store, EVENT)) as waiter:
        any_store.studies.all()
        began = time.monotonic()
        assert not waiter.wait(0.25)
        assert time.monotonic() - began >= 0.25
        assert not waiter.wait(-1)


@pytest.mark.parametrize("store_url", ["postgresql"], indirect=True)
def test_each_channel_has_its_own_listeners(any_store: Store) -> None:
    with closing(rested(any_store, CONTROLLER)) as waiter:
        any_store.jobs.add("check", {})
        assert not waiter.wait(0.1), "this was for the clerks"
        lead = any_store.leads.seize(create(any_store, make_spec()).id, "me")
        assert waiter.wait(30)
        waiter.wait(0)
        any_store.leads.release(lead)
        assert waiter.wait(30), "another controller may lead now"


def test_closed_twice_does_no_harm(any_store: Store) -> None:
    waiter = rested(any_store, EVENT)
    waiter.close()
    waiter.close()
