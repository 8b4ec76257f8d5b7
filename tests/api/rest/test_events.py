"""The event stream: everything once and in order, resumed without a gap, ended with the study."""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from db.store import Store, open_store
from evaluation.result import Infeasible
from tests.api.rest.conftest import Site, a_study, assert_problem, finished, open_trial, served, site_on, told_trial
from tests.search.factories import leading, scored
from tests.server import wait_until
from tests.services import Postgres


@dataclass
class Seen:
    """One event as a client reads it."""

    kind: str
    id: int | None
    data: dict[str, Any]


def events(lines: Iterator[str]) -> Iterator[Seen]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line and name:
            fields[name] = value
        elif "data" in fields:
            yield Seen(fields["event"], int(fields["id"]) if "id" in fields else None, json.loads(fields["data"]))
            fields = {}


def stream(site: Site, path: str = "", **headers: str) -> list[Seen]:
    answer = site.get(f"/v1/studies/test/events{path}", **headers)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
    return list(events(iter(answer.text.split("\n"))))


def test_a_finished_study_tells_everything_and_ends(any_site: Site) -> None:
    study = finished(any_site.store)
    seen = stream(any_site)
    stored = any_site.store.events.after(study.id, 0)
    assert [(e.kind, e.id) for e in seen] == [(e.kind, e.seq) for e in stored]
    assert seen[0].kind == "study.created" and seen[-1].data["state"] == "finished"
    told = [e.data for e in seen if e.kind == "trial.told"]
    assert [(t["number"], t["value"]) for t in told] == [(0, 0.25), (1, 0.75), (2, None)] and "at" in told[0]


def test_a_stream_resumes_with_exactly_what_is_missing(any_site: Site) -> None:
    finished(any_site.store)
    every = stream(any_site)
    for cut in range(len(every) + 1):
        assert stream(any_site, **({"Last-Event-ID": str(cut)} if cut else {})) == every[cut:]
        assert stream(any_site, f"?after={cut}") == every[cut:]
    assert stream(any_site, "?after=1", **{"Last-Event-ID": "3"}) == every[3:]


def test_more_events_than_are_read_at_once(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.rest.events._PART", 2)
    finished(site.store)
    seen = stream(site)
    assert [e.id for e in seen] == list(range(1, len(seen) + 1)) and len(seen) > 6


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_a_study_that_ends_otherwise_ends_its_stream(site: Site, end: str) -> None:
    study = a_study(site.store)
    if end == "cancelled":
        site.store.studies.cancel("test")
    else:
        site.store.studies.fail(leading(site.store, study.id), "nothing could be scored")
    assert stream(site)[-1].data["state"] == end


@pytest.mark.parametrize("word", ["x", "-1", "1.5", "9" * 30])
def test_an_event_id_that_is_none_is_refused(site: Site, word: str) -> None:
    a_study(site.store)
    answer = site.get("/v1/studies/test/events", **{"Last-Event-ID": word})
    assert_problem(answer, 422, "invalid-input", "Last-Event-ID")


def follow(site: Site, address: str, path: str = "", **headers: str) -> Iterator[Seen]:
    """Events as they come from a real server."""
    url = f"{address}/v1/studies/test/events{path}"
    with httpx.stream("GET", url, headers=site.headers(**headers), timeout=20) as answer:
        yield from events(answer.iter_lines())


def live(store: Store) -> threading.Thread:
    """A study that goes on for a while, from another thread."""
    study = a_study(store)

    def work() -> None:
        told_trial(store, study, 0, scored(0.5))
        told_trial(store, study, 1, Infeasible(why="NaN"))
        store.studies.cancel("test")

    return threading.Thread(target=work)


def test_what_happens_now_is_told_now_and_a_cut_stream_goes_on(any_site: Site) -> None:
    worker = live(any_site.store)
    with served(any_site) as address:
        first = follow(any_site, address)
        seen = [next(first)]
        assert seen[0].kind == "study.created"
        worker.start()
        seen += [next(first), next(first)]
        first.close()  # type: ignore[attr-defined]
        rest = list(follow(any_site, address, **{"Last-Event-ID": str(seen[-1].id)}))
    worker.join()
    assert [e.id for e in seen + rest] == list(range(1, len(seen + rest) + 1))
    assert rest[-1].kind == "study.state" and rest[-1].data["state"] == "cancelled"


def test_a_stream_outlives_a_restart_of_the_database(own_postgres: Postgres, tmp_path: Path) -> None:
    store = open_store(own_postgres.database())
    study = a_study(store)
    with site_on(store, tmp_path) as site, served(site) as address:
        stream = follow(site, address)
        seen = [next(stream)]
        own_postgres.restart()
        told_trial(store, study, 0, scored(0.5))
        store.studies.cancel("test")
        seen += stream
    assert [e.id for e in seen] == [1, 2, 3, 4] and seen[-1].data["state"] == "cancelled"
    store.close()


def test_progress_is_told_between_events_and_has_no_id(site: Site) -> None:
    store = site.store
    study = a_study(store)
    lease = store.evaluations.claim(open_trial(store, study, 0), "w", 60)
    assert lease is not None and store.evaluations.progress(lease, 2, 8, None)
    with served(site) as address:
        seen = []
        for event in follow(site, address, "?progress=true"):
            seen.append(event)
            if event.kind == "progress":
                store.studies.cancel("test")
    (progress,) = [e for e in seen if e.kind == "progress"]
    assert progress.id is None and progress.data["running"][0]["progress"]["documents_done"] == 2
    assert seen[-1].data["state"] == "cancelled"


def test_a_quiet_stream_is_kept_alive(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    a_study(site.store)
    with served(site) as address:
        url = f"{address}/v1/studies/test/events"
        with httpx.stream("GET", url, headers=site.headers(), timeout=20) as answer:
            assert any(line == ": ping" for line in answer.iter_lines())


def test_a_server_that_ends_does_not_wait_for_its_streams(site: Site) -> None:
    a_study(site.store)
    with served(site) as address:
        stream = follow(site, address)
        next(stream)


def test_a_stream_ends_with_its_key(site: Site) -> None:
    a_study(site.store)
    with served(site) as address, httpx.Client(base_url=address, timeout=20) as client:
        key, secret = site.store.keys.create("passing", ["read"])
        with client.stream("GET", "/v1/studies/test/events", headers={"Authorization": f"Bearer {secret}"}) as answer:
            lines = answer.iter_lines()
            assert next(line for line in lines if line == "event: study.created")
            site.store.keys.revoke(key.prefix)
            assert not any(line.startswith("event") for line in lines)  # and it ends


def test_who_hangs_up_is_no_failure(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    a_study(site.store)
    head = f"Host: x\r\nAuthorization: Bearer {site.keys['run']}\r\nContent-Type: application/json\r\n"
    caplog.set_level(logging.INFO, "mergesearch.api")
    with served(site) as address:
        where = httpx.URL(address)
        for request in ("GET /v1/studies/test/events", "POST /v1/studies"):
            with socket.create_connection((where.host, where.port or 0), timeout=10) as connection:
                connection.sendall(f"{request} HTTP/1.1\r\n{head}Content-Length: 9\r\n\r\n{{".encode())
                time.sleep(0.3)
        wait_until(lambda: "POST /v1/studies 0" in caplog.text, "the request is logged")
        open_trial(site.store, site.store.studies.get("test"), 0)
        wait_until(lambda: "GET /v1/studies/test/events 200" in caplog.text, "the stream is logged")
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


def test_a_service_that_ends_ends_its_streams_in_order(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    a_study(site.store)
    with httpx.Client(timeout=20) as client:
        with served(site) as address:
            stream = client.stream("GET", f"{address}/v1/studies/test/events", headers=site.headers("read"))
            lines = stream.__enter__().iter_lines()
            assert next(line for line in lines if line == "event: study.created")
        assert not any(line.startswith("event") for line in lines)  # whole, not cut off
        stream.__exit__(None, None, None)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
