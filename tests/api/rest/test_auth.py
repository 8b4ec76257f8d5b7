"""Keys: which are accepted, what they may do, how often they may ask."""

import time
from pathlib import Path

import pytest

from api.rest.limits import Buckets
from db.store import Store
from tests.api.rest.conftest import Site, a_study, assert_problem, site_on

ROUTES = ("/v1/studies", "/v1/studies/test", "/v1/methods", "/v1/workers", "/v1/exports/1", "/metrics")


@pytest.mark.parametrize("path", ROUTES)
def test_without_a_key_nothing_is_shown(site: Site, path: str) -> None:
    answer = site.client.get(path)
    assert_problem(answer, 401, "no-key", "send an API key")
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    "secret", ["nonsense", "ms_00000000_" + "a" * 43, "ms_\x00_" + "a" * 43, "ms__" + "a" * 43, "ms_" + "a" * 5000]
)
def test_a_wrong_key_is_refused(any_site: Site, secret: str) -> None:
    answer = any_site.client.get("/v1/studies", headers={"X-API-Key": secret})
    assert_problem(answer, 401, "wrong-key", "unknown, expired or revoked")
    assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_a_key_whose_secret_is_another_is_refused(site: Site) -> None:
    wrong = site.keys["read"][:-3] + "abc"
    assert_problem(site.client.get("/v1/studies", headers={"X-API-Key": wrong}), 401, "wrong-key")


def test_an_expired_and_a_revoked_key_are_refused(site: Site) -> None:
    _, expired = site.store.keys.create("old", ["read"], time.time() - 1)
    key, revoked = site.store.keys.create("gone", ["read"])
    site.store.keys.revoke(key.prefix)
    for secret in (expired, revoked):
        answer = site.client.get("/v1/studies", headers={"Authorization": f"Bearer {secret}"})
        assert_problem(answer, 401, "wrong-key")


def test_both_headers_are_taken(site: Site) -> None:
    assert site.get("/v1/studies").status_code == 200
    assert site.client.get("/v1/studies", headers={"X-API-Key": site.keys["read"]}).status_code == 200
    answer = site.client.get("/v1/studies", headers={"Authorization": f"Basic {site.keys['read']}"})
    assert_problem(answer, 401, "no-key")


@pytest.mark.parametrize("path", ["", "/test/pause", "/test/resume", "/test/cancel", "/test/exports"])
def test_a_key_that_may_only_read_changes_nothing(site: Site, path: str) -> None:
    study = a_study(site.store)
    answer = site.post(f"/v1/studies{path}", {}, scope="read")
    assert_problem(answer, 403, "wrong-scope", "scope run")
    assert 'scope="run"' in answer.headers["www-authenticate"]
    assert site.store.studies.get("test") == study and site.store.studies.all() == (study,)


def test_a_later_scope_implies_those_before_it(site: Site) -> None:
    a_study(site.store)
    for scope in ("run", "admin"):
        assert site.get("/v1/studies", scope).status_code == 200
        assert site.post("/v1/studies/test/pause", scope=scope).status_code == 200


def test_a_key_that_asks_too_often_waits_and_others_do_not(store: Store, tmp_path: Path) -> None:
    with site_on(store, tmp_path, requests_per_minute=3) as site:
        assert [site.get("/v1/methods").status_code for _ in range(3)] == [200] * 3
        answer = site.get("/v1/methods")
        assert_problem(answer, 429, "too-many-requests", "3 requests a minute")
        assert 1 <= int(answer.headers["retry-after"]) <= 20
        assert site.get("/v1/methods", "admin").status_code == 200
        assert site.client.get("/healthz").status_code == 200


def test_a_request_counts_once(store: Store, tmp_path: Path) -> None:
    a_study(store)
    with site_on(store, tmp_path, requests_per_minute=2) as site:
        assert site.post("/v1/studies/test/pause").status_code == 200
        assert site.post("/v1/studies/test/resume").status_code == 200


def test_who_comes_without_a_key_is_slowed_down_and_a_right_key_is_not(store: Store, tmp_path: Path) -> None:
    with site_on(store, tmp_path, requests_per_minute=20) as site:
        assert [site.client.get("/v1/methods").status_code for _ in range(3)] == [401, 401, 429]
        assert site.get("/v1/methods").status_code == 200


def test_a_bucket_refills_evenly() -> None:
    now = 0.0
    buckets = Buckets(60, lambda: now)
    assert [buckets.take("a") for _ in range(60)] == [0.0] * 60
    assert buckets.take("a") == pytest.approx(1.0) and buckets.take("b") == 0.0
    now = 1.5
    assert buckets.take("a") == 0.0 and buckets.take("a") == pytest.approx(0.5)
