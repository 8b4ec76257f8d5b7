"""The event stream through connections that break: everything once, in order, to the end."""

import threading
import time
from pathlib import Path

import pytest

from api.client.events import Message, messages
from api.client.problems import ServiceError
from db.records import Study
from db.store import Store
from tests.api.client.conftest import Running, cutting, finish
from tests.api.rest.conftest import a_study, open_trial, served, site_on, told_trial
from tests.search.factories import leading, scored


def written(store: Store, study: Study) -> list[tuple[int | None, str]]:
    return [(event.seq, event.kind) for event in store.events.after(study.id, 0)]


def test_a_stream_that_breaks_again_and_again_loses_and_repeats_nothing(running: Running) -> None:
    study = a_study(running.store)

    def work() -> None:
        for number in range(3, 23):
            told_trial(running.store, study, number, scored(number / 100))
        finish(running.store, study)

    thread = threading.Thread(target=work)
    running.cutter.budgets = [1, 200, *range(900, 1500, 100)]
    thread.start()
    with running.remote("read", cut=True) as remote:
        seen = [(event.seq, event.kind) for event in remote.events("test")]
        rest = [(event.seq, event.kind) for event in remote.events("test", after=40)]
        assert list(remote.events("test", after=len(seen))) == []
    thread.join()
    assert seen == written(running.store, study) and rest == seen[40:]
    assert seen[-1][1] == "study.state" and running.cutter.connections > 6


def test_a_service_that_is_restarted_is_waited_for(store: Store, tmp_path: Path) -> None:
    study = a_study(store)
    store.studies.fail(leading(store, study.id), "mended since")
    store.studies.resume(study.name)  # so the stream tells of an end that was none
    with site_on(store, tmp_path) as site, cutting(1) as (way, address):
        from api.client.remote import Remote

        def work() -> None:
            for number in range(3):
                with served(site) as where:
                    way.port = int(where.rpartition(":")[2])
                    told_trial(store, study, number + 10, scored(0.1))
                    time.sleep(0.6)
            with served(site) as where:
                way.port = int(where.rpartition(":")[2])
                finish(store, study)
                over.wait(20)

        over = threading.Event()
        thread = threading.Thread(target=work)
        thread.start()
        try:
            with Remote(address, site.keys["read"], patience=15) as remote:
                assert [(event.seq, event.kind) for event in remote.events("test")] == written(store, study)
        finally:
            over.set()
            thread.join()


def test_a_service_that_stays_away_is_given_up(running: Running) -> None:
    study = a_study(running.store)
    for number in range(10):
        told_trial(running.store, study, number, scored(0.1))
    running.cutter.budgets = [1500] + [1] * 100
    with running.remote("read", cut=True, patience=0.8) as remote:
        events = remote.events("test")
        assert next(events).kind == "study.created"
        with pytest.raises(ServiceError, match=r"the connection to .* broke"):
            list(events)


def test_progress_is_told_on_demand(running: Running) -> None:
    study = a_study(running.store)
    lease = running.store.evaluations.claim(open_trial(running.store, study, 0), "worker", 60)
    assert lease is not None and running.store.evaluations.progress(lease, 3, 8, 120.0)
    with running.remote("read") as remote:
        found = next(event for event in remote.events("test", progress=True) if event.kind == "progress")
        assert found.seq is None and found.data["running"][0]["progress"]["documents_done"] == 3


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_server_sent_events_are_parsed_from_any_pieces(size: int) -> None:
    stream = (
        ": hello\nretry: 2000\n\n"
        'id: 1\nevent: a\ndata: {"why": "two\u2028lines\x0b \x85é"}\n\n'
        "event: progress\r\ndata: one\r\ndata:  two\r\n\r\n"
        "id: 2\nevent: b\ndata: cut off"
    ).encode()
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    assert list(messages(pieces)) == [
        Message("1", "a", '{"why": "two\u2028lines\x0b \x85é"}'),
        Message("", "progress", "one\n two"),
    ]
