"""A client of a real service: what it is told, what it is refused, and what it makes of a service that is away."""

import itertools
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from api.client.problems import ServiceError, error_of_problem
from api.client.remote import Remote, connect
from db.store import Store
from merging.errors import Conflict, InvalidInput, NotFound
from tests.api.client.conftest import Running, running_on
from tests.api.rest.conftest import a_study, told_trial
from tests.search.factories import scored, study_content


def test_a_study_is_submitted_looked_at_and_changed(running: Running) -> None:
    with running.remote() as remote:
        study = remote.submit(study_content())
        assert study["name"] == "test" and study["spec"]["models"]["base"] == str(running.site.root / "base")
        assert remote.change("test", "pause")["state"] == "paused" == remote.study("test")["state"]
        assert remote.change("test", "resume")["state"] == "running"
        assert remote.change("test", "cancel")["state"] == "cancelled"
        with pytest.raises(Conflict, match="'test' is cancelled, so it cannot be resumed"):
            remote.change("test", "resume")
        with pytest.raises(NotFound, match=r"'test' is cancelled .* has no verdict"):
            remote.verdict("test")


def test_a_submission_that_takes_long_is_waited_for(store: Store, tmp_path: Path) -> None:
    with running_on(store, tmp_path, submit_wait_seconds=0) as service, service.remote() as remote:
        assert remote.submit(study_content())["name"] == "test"
        with pytest.raises(InvalidInput) as caught:
            remote.submit(study_content(name="other", evaluation={"tasks": [{"name": "unknown"}]}))
    said = "evaluation.tasks[0].name: 'unknown' is unknown to lm-eval; name one that it lists"
    assert str(caught.value) == said
    assert (caught.value.key, caught.value.value) == ("evaluation.tasks[0].name", "unknown")
    assert (caught.value.problem, caught.value.remedy) == ("is unknown to lm-eval", "name one that it lists")


def test_the_same_request_is_done_once_also_when_its_answer_is_lost(running: Running) -> None:
    running.cutter.budgets = [1]
    with running.remote(cut=True) as remote:
        first = remote.submit(study_content(), "mine")
        assert remote.submit(study_content(), "mine")["created_at"] == first["created_at"]
        with pytest.raises(InvalidInput, match="'mine' was used for another request; use a new one"):
            remote.submit(study_content(name="other"), "mine")
        with pytest.raises(Conflict, match="named 'test' exists already"):
            remote.submit(study_content())


def test_lists_are_read_to_their_end(running: Running) -> None:
    study = a_study(running.store)
    for name in map(str, range(120)):
        a_study(running.store, name)
    for number in range(3):
        told_trial(running.store, study, number, scored(number / 10))
    with running.remote("read") as remote:
        assert [s["name"] for s in remote.studies()] == ["test", *map(str, range(120))]
        assert [t["value"] for t in remote.trials("test")] == [0.0, 0.1, 0.2]
        assert remote.trial("test", 2)["scores"]["t"]["value"] == 0.2
        with pytest.raises(NotFound, match="has no trial 3"):
            remote.trial("test", 3)


@pytest.mark.parametrize("name", ["nothing", "..", "a/b", "", "%2e", "x" * 200])
def test_an_unknown_study(running: Running, name: str) -> None:
    with running.remote() as remote:
        for ask in (
            remote.study,
            remote.trials,
            lambda n: remote.change(n, "cancel"),
            lambda n: list(remote.events(n)),
        ):
            with pytest.raises(NotFound, match="no study is named"):
                ask(name)


def test_keys_that_are_not_accepted(running: Running, tmp_path: Path) -> None:
    with Remote(running.address, f"ms_deadbeef_{'x' * 43}") as remote:
        with pytest.raises(
            ServiceError, match=r"unknown, expired or revoked; .*keys create.*MERGESEARCH_KEY"
        ) as caught:
            remote.studies()
        assert caught.value.status == 401 and not caught.value.passing
        for ask in (lambda: list(remote.events("test")), lambda: remote.export("test", None, tmp_path / "x")):
            with pytest.raises(ServiceError, match="unknown, expired or revoked"):
                ask()
    with running.remote("read") as remote, pytest.raises(ServiceError, match=r"needs .* scope run; .*MERGESEARCH_KEY"):
        remote.submit(study_content())


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("", "MERGESEARCH_KEY: is not set; .*keys create"),
        (" \n", "is not set"),
        ("ключ", "is no API key"),
        ("a b", "no"),
    ],
)
def test_what_is_no_key(monkeypatch: pytest.MonkeyPatch, key: str, said: str) -> None:
    monkeypatch.setenv("MERGESEARCH_KEY", key)
    with pytest.raises(InvalidInput, match=said) as caught:
        connect("http://127.0.0.1:1")
    assert not key.strip() or key not in str(caught.value)


@pytest.mark.parametrize(
    "server", ["", "localhost:8000", "ftp://x", "http://", "http://x:port", "http://x/?a=b", "http://[x"]
)
def test_what_is_no_url(server: str) -> None:
    with pytest.raises(InvalidInput, match="is no URL of a service; write it like http://"):
        Remote(server, "k")
    with pytest.raises(InvalidInput, match="holds a user or password") as caught:
        Remote("http://me:secret@host", "k")
    assert "secret" not in str(caught.value)


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with Remote(f"http://127.0.0.1:{port}/", "k", patience=0.1) as remote:
        said = rf"no service answers at http://127.0.0.1:{port}; start one with `mergesearch serve`, or .*--server"
        for ask in (
            remote.studies,
            lambda: remote.submit({}),
            lambda: list(remote.events("x")),
            lambda: remote.export("x", None, tmp_path / "x"),
        ):
            with pytest.raises(ServiceError, match=said):
                ask()


def test_a_service_without_a_controller_takes_no_study(running: Running) -> None:
    running.store.processes.leave("controller")
    with running.remote() as remote, pytest.raises(ServiceError, match="start one with `mergesearch controller`"):
        remote.submit(study_content())


def test_who_asks_too_often_waits(store: Store, tmp_path: Path) -> None:
    with running_on(store, tmp_path, requests_per_minute=120) as service, service.remote("read") as remote:
        a_study(store)
        for _ in range(122):
            remote.study("test")


def test_a_study_that_is_too_large_or_no_json(store: Store, tmp_path: Path) -> None:
    with running_on(store, tmp_path, max_body_bytes=2000) as service, service.remote() as remote:
        with pytest.raises(ServiceError, match="more than the 2000 bytes"):
            remote.submit(study_content(name="x" * 3000))
        with pytest.raises(InvalidInput, match="cannot be sent"):
            remote.submit(study_content(objective=float("inf")))


class Stranger(BaseHTTPRequestHandler):
    """A web server that is not ours."""

    answers = itertools.cycle([(200, b"<html>"), (404, b"<html>"), (500, b"[]"), (404, b'{"detail": 3}')])

    def do_GET(self) -> None:
        status, body = next(self.answers)
        if self.path.startswith("/away"):
            status, body = 302, b""
            self.send_response(status)
            self.send_header("Location", "http://elsewhere.example/")
        else:
            self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_another_server_is_not_taken_for_ours() -> None:
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_port}"
            with Remote(address, "k", patience=0.1) as remote:
                for _ in range(4):
                    with pytest.raises(ServiceError, match=r"answers \(\d+\), but not as mergesearch does"):
                        remote.studies()
            with (
                Remote(f"{address}/away", "k") as remote,
                pytest.raises(ServiceError, match=r"points to .*elsewhere"),
            ):
                remote.studies()
        finally:
            server.shutdown()
            thread.join()


def test_what_a_service_says_cannot_steer_a_terminal() -> None:
    assert str(error_of_problem({"status": 404, "detail": "no \x1b[2Jstudy"})) == "no  [2Jstudy"
