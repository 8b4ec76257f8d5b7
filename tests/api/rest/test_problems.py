"""Every refusal is a problem: unknown paths, wrong methods, large bodies, a database that is away, a bug."""

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from starlette.responses import PlainTextResponse

from db.session import make_engine
from db.store import Store
from tests.api.rest.conftest import Site, a_study, assert_problem, served, site_on
from tests.services import Postgres

ROOT = Path(__file__).parents[3]


def test_the_application_loads_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "lm_eval", "datasets", "optuna", "scipy", "celery", "redis"}
    code = "import sys, api.rest.app; print(*{name.partition('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not set(done.stdout.split()) & heavy


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v2/studies", "/docs", "/v1/studies/", "/openapi.json"])
def test_an_unknown_path_is_a_problem(site: Site, path: str) -> None:
    assert_problem(site.get(path), 404, "not-found", "nothing at this path")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/v1/studies", "GET, POST"),
        ("PUT", "/v1/studies/test", "GET"),
        ("GET", "/v1/studies/test/pause", "POST"),
        ("DELETE", "/v1/studies/test/exports", "GET, POST"),
        ("POST", "/healthz", "GET"),
    ],
)
def test_a_wrong_method_names_those_that_work(site: Site, method: str, path: str, allowed: str) -> None:
    answer = site.client.request(method, path, headers=site.headers("admin"))
    assert_problem(answer, 405, "wrong-method", method, allowed)
    assert answer.headers["allow"] == allowed


def test_other_paths_are_the_dashboards(store: Store, tmp_path: Path) -> None:
    with site_on(store, tmp_path, {"dashboard": PlainTextResponse("dashboard")}) as site:
        assert site.get("/dashboard").text == site.get("/").text == "dashboard"
        assert_problem(site.get("/v1/nothing"), 404, "not-found")
        assert_problem(site.client.delete("/v1/studies", headers=site.headers()), 405, "wrong-method")


def test_a_large_body_is_refused_however_it_is_sent(site: Site) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    for content in (b"x" * 10_000_000, parts()):
        answer = site.client.post("/v1/studies", content=content, headers=site.headers("run"))
        assert_problem(answer, 413, "too-large", "1000000 bytes")


def test_a_large_body_is_refused_on_a_real_socket(site: Site) -> None:
    def parts() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    with served(site) as address:
        for content in (b"x" * 10_000_000, parts()):
            headers = site.headers("run", **{"Content-Type": "application/json"})
            answer = httpx.post(f"{address}/v1/studies", content=content, headers=headers, timeout=20)
            assert_problem(answer, 413, "too-large", "1000000 bytes")


def test_the_request_has_an_id_that_the_log_has_too(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    a_study(site.store)
    with caplog.at_level(logging.INFO, "mergesearch.api"):
        answer = site.get("/v1/studies/test", **{"X-Request-ID": "abc-1"})
    assert answer.headers["x-request-id"] == "abc-1"
    (record,) = [r for r in caplog.records if r.name == "mergesearch.api"]
    assert record.__dict__["request"] == "abc-1" and record.__dict__["study"] == "test"
    assert "GET /v1/studies/test 200" in record.getMessage()
    for odd in ("a b", "x" * 100, "<script>"):
        assert site.get("/v1/methods", **{"X-Request-ID": odd}).headers["x-request-id"] != odd
    assert site.get("/v1/a%0Ab").status_code == 404
    assert site.keys["read"] not in caplog.text and "\nb" not in caplog.text


def test_browsers_are_told_to_be_careful(site: Site) -> None:
    for answer in (site.get("/v1/methods"), site.client.get("/healthz"), site.client.get("/v1/methods")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]


def test_a_bug_tells_nothing_of_itself(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise RuntimeError("secret detail of /etc/passwd")

    monkeypatch.setattr(site.store.studies, "page", broken)
    answer = site.get("/v1/studies")
    problem = assert_problem(answer, 500, "internal", "log")
    assert "secret" not in answer.text and "RuntimeError" not in answer.text
    records = [r for r in caplog.records if r.__dict__.get("request") == problem["request_id"] and r.exc_info]
    assert len(records) == 1 and "secret detail" in caplog.text
    assert json.loads(answer.text)["instance"] == "/v1/studies"


def test_a_database_that_is_away_is_said_so_and_comes_back(own_postgres: Postgres, tmp_path: Path) -> None:
    from db.schema import upgrade

    engine = make_engine(own_postgres.database())
    upgrade(engine)
    store = Store(engine)
    with site_on(store, tmp_path) as site:
        assert site.get("/v1/studies").status_code == 200
        own_postgres.stop()
        for _ in range(2):
            answer = site.get("/v1/studies")
            assert_problem(answer, 503, "unavailable", "database")
            assert answer.headers["retry-after"] and "postgres" not in answer.text.lower()
        assert site.client.get("/healthz").status_code == 200
        readiness = site.client.get("/readyz")
        assert readiness.status_code == 503 and not readiness.json()["checks"]["database"]["ok"]
        own_postgres.start()
        assert site.get("/v1/studies").status_code == 200
    store.close()


def test_a_path_cannot_write_lines_of_the_log(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "mergesearch.api")
    site.client.get("/v1/studies/a%0aERROR%20forged/trials")
    (record,) = [r for r in caplog.records if r.name == "mergesearch.api"]
    assert "\n" not in record.getMessage() and not hasattr(record, "study")
