"""Health, readiness and metrics, and the OpenAPI document."""

from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from db.session import make_engine, sqlite_url
from db.store import Store
from tests.api.rest.conftest import Site, a_study, assert_problem, finished, open_trial, site_on

OPERATIONS = {
    "submit_study",
    "list_studies",
    "get_study",
    "pause_study",
    "resume_study",
    "cancel_study",
    "list_trials",
    "get_trial",
    "get_best_trial",
    "get_verdict",
    "stream_events",
    "create_export",
    "list_exports",
    "get_export",
    "download_export_file",
    "get_submission",
    "list_methods",
    "list_workers",
    "get_health",
    "get_readiness",
    "get_metrics",
}


def test_it_is_ready_once_a_controller_lives(any_site: Site) -> None:
    assert any_site.client.get("/healthz").json() == {"status": "ok"}
    before = any_site.client.get("/readyz")
    assert before.status_code == 503 and before.json()["status"] == "unready"
    assert "mergesearch controller" in before.json()["checks"]["controller"]["detail"]
    any_site.controller()
    after = any_site.client.get("/readyz")
    assert after.status_code == 200 and after.json()["status"] == "ready"
    assert after.json()["checks"]["controller"]["detail"] == "heard of 0 s ago"


def broken() -> bool:
    raise ConnectionError("redis")


@pytest.mark.parametrize(
    ("broker", "status"), [(lambda: True, "ready"), (lambda: False, "degraded"), (broken, "degraded")]
)
def test_without_the_broker_it_is_degraded(store: Store, tmp_path: Path, broker: object, status: str) -> None:
    with site_on(store, tmp_path, {"broker_healthy": broker}) as site:
        site.controller()
        answer = site.client.get("/readyz")
    assert answer.status_code == 200 and answer.json()["status"] == status


def test_a_database_that_is_behind_is_not_ready(tmp_path: Path) -> None:
    store = Store(make_engine(sqlite_url(tmp_path / "empty.db")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store.keys, "create", lambda *args: (None, "x"))
        with site_on(store, tmp_path) as site:
            answer = site.client.get("/readyz")
    assert answer.status_code == 503
    assert "mergesearch migrate" in answer.json()["checks"]["schema"]["detail"] and str(tmp_path) not in answer.text
    store.close()


def metrics(site: Site, scope: str = "read") -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    answer = site.get("/metrics", scope)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


def test_metrics_count_what_there_is(any_store: Store, tmp_path: Path) -> None:
    parts = {"queue_depths": lambda: {"default": 3}}
    with site_on(any_store, tmp_path, parts) as site:
        finished(any_store)
        study = a_study(any_store, "other")
        lease = any_store.evaluations.claim(open_trial(any_store, study, 0), "w", 60)
        assert lease is not None and any_store.evaluations.progress(lease, 1, 2, 50.0)
        open_trial(any_store, study, 1)
        any_store.metrics.add(asks=2, ask_seconds=0.5)
        any_store.processes.beat("w", "worker", {"device": "cuda:0", "memory_used": 5, "memory_total": 9})
        site.get("/v1/studies/test")
        site.get("/v1/studies/other")
        site.client.get("/nowhere/at/all")
        found = metrics(site)

    def value(name: str, **labels: str) -> float:
        return found[(f"mergesearch_{name}", frozenset(labels.items()))]

    assert value("trials", state="complete") == 2 and value("trials", state="open") == 2
    assert value("studies", state="finished") == 1 and value("evaluations", state="leased") == 1
    assert value("evaluations_scored_total") == 2 and value("tokens_total") == 20
    assert value("build_seconds_total") == pytest.approx(0.2) and value("score_seconds_total") == pytest.approx(0.4)
    assert value("asks_total") == 2 and value("ask_seconds_total") == 0.5 and value("lease_expiries_total") == 0
    assert value("tokens_per_second") == 50 and value("queued_evaluations", pool="default") == 1
    assert value("queue_depth", pool="default") == 3 and value("processes", role="worker") == 1
    assert value("device_memory_used_bytes", worker="w", device="cuda:0") == 5
    assert value("http_requests_total", method="GET", route="/v1/studies/{name}", status="200") == 2
    assert value("http_requests_total", method="GET", route="other", status="404") == 1


def test_metrics_need_a_key_unless_they_are_open(store: Store, tmp_path: Path) -> None:
    with site_on(store, tmp_path) as site:
        assert_problem(site.client.get("/metrics"), 401, "no-key")
    with site_on(store, tmp_path, {"queue_depths": broken}, metrics_open=True) as site:
        assert "mergesearch_studies" in site.client.get("/metrics").text


def test_the_document_names_every_operation_body_and_refusal(site: Site) -> None:
    document = site.client.get("/v1/openapi.json").json()
    operations = {o["operationId"]: o for methods in document["paths"].values() for o in methods.values()}
    assert set(operations) == OPERATIONS
    for name, operation in operations.items():
        assert operation["summary"] and operation["tags"], name
        assert "HTTPValidationError" not in str(operation), name
        if name not in ("get_health", "get_readiness"):
            assert {"401", "403", "422", "429", "500", "503"} <= set(operation["responses"]), name
            assert operation["security"], name
    assert operations["submit_study"]["requestBody"]["required"]
    assert "application/yaml" in operations["submit_study"]["description"]
    assert {"StudySpec", "ExpertSpec", "Problem", "ExportRequest", "Verdict"} <= set(document["components"]["schemas"])
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in document["components"]["schemas"]


def references(content: object) -> list[str]:
    if isinstance(content, dict):
        own = [content["$ref"]] if isinstance(content.get("$ref"), str) else []
        return own + [r for value in content.values() for r in references(value)]
    return [r for value in content for r in references(value)] if isinstance(content, list) else []
