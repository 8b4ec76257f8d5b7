"""The dashboard behind its guard: for who has a key, reading only, nothing that costs minutes, no way out."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.rest.dashboard import Guard, make_dashboard, make_local_dashboard
from api.rest.login import COOKIE, Login, local
from db.records import ApiKey
from db.store import Store
from search.mirror import Mirror, mirror_url
from tests.search.factories import make_spec
from tests.search.mirrored import Filled

HTML = {"Accept": "text/html,application/xhtml+xml"}
KEY = ApiKey(1, "anna", "abcd1234", ("read",), 0.0, None, None, None)
SECRET = "ms_abcd1234_" + "x" * 43


class Book:
    """The keys, in memory."""

    def __init__(self) -> None:
        self.key, self.digest = KEY, "the digest"

    def authenticate(self, secret: str) -> ApiKey | None:
        return self.key if secret == SECRET and self.key.revoked_at is None else None

    def by_prefix(self, prefix: str) -> tuple[ApiKey, str] | None:
        return (self.key, self.digest) if prefix == self.key.prefix and self.key.revoked_at is None else None


@pytest.fixture
def book() -> Book:
    return Book()


@pytest.fixture
def client(book: Book) -> TestClient:
    """A guard before an application that says what it was asked."""
    return client_of(Guard(echo, Login(book)))


def client_of(app: Guard, base: str = "http://testserver") -> TestClient:
    return TestClient(app, base_url=base, follow_redirects=False, raise_server_exceptions=True)


async def echo(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    content = {k.decode(): v.decode() for k, v in scope["headers"]}
    body = f"{scope['method']} {scope['path']} {scope['query_string'].decode()} {content}".encode()
    status = 500 if scope["path"] == "/dashboard/broken" else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


def sign_in(client: TestClient, secret: str = SECRET, onward: str = "/dashboard/studies/3") -> None:
    answer = client.post("/login", data={"key": secret, "next": onward})
    assert answer.status_code == 303, answer.text


def problem(answer) -> str:  # type: ignore[no-untyped-def]
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code
    return str(answer.json()["detail"])


@pytest.mark.parametrize("path", ["/dashboard", "/dashboard/", "/api/studies", "/static/bundle.js", "/favicon.ico"])
def test_without_a_key_nothing_is_shown(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 401 and answer.headers["www-authenticate"].startswith("Bearer")
    assert "API key" in problem(answer)


@pytest.mark.parametrize("secret", ["nonsense", "ms_abcd1234_" + "y" * 43, "", "ms_\x01_" + "x" * 43])
def test_a_wrong_key_is_refused_also_where_a_browser_asks(client: TestClient, secret: str) -> None:
    for headers in ({"X-API-Key": secret}, {"Authorization": f"Bearer {secret}"}):
        answer = client.get("/dashboard/", headers={**headers, **HTML})
        assert answer.status_code == 401 and "invalid_token" in answer.headers["www-authenticate"]
        assert "unknown, expired or revoked" in problem(answer)


@pytest.mark.parametrize("headers", [{"X-API-Key": SECRET}, {"Authorization": f"Bearer {SECRET}"}])
def test_a_key_opens_and_is_not_passed_on(client: TestClient, headers: dict[str, str]) -> None:
    answer = client.get("/api/studies/7?after=12", headers={**headers, "X-Other": "1"})
    assert answer.status_code == 200 and answer.text.startswith("GET /api/studies/7 after=12")
    assert SECRET not in answer.text and "x-other" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


def test_a_query_that_the_pages_do_not_send_is_left_out(client: TestClient) -> None:
    answer = client.get("/api/studies/7?after=x&y=1", headers={"X-API-Key": SECRET})
    assert answer.text.startswith("GET /api/studies/7  ")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/api/studies/1", "/dashboard/", "/api/trials/1/tell", "/static/bundle.js"])
@pytest.mark.parametrize("headers", [{}, {"X-API-Key": SECRET}])
def test_nothing_can_be_written(client: TestClient, method: str, path: str, headers: dict[str, str]) -> None:
    answer = client.request(method, path, headers=headers)
    assert answer.status_code == 405 and answer.headers["allow"] == "GET, HEAD" and "only shows" in problem(answer)


@pytest.mark.parametrize("path", ["/api/studies/1/plot/contour", "/api/studies/1/plot/rank/", "/csv/1", "/csv/1/"])
def test_what_costs_minutes_is_switched_off(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 401
    answer = client.get(path, headers={"X-API-Key": SECRET})
    assert answer.status_code == 403 and "switched off" in problem(answer)


@pytest.mark.parametrize(
    "path",
    ["/incompatible-rdb-schema", "/artifacts/1/ab", "/api/artifacts/1", "/api/studies/1/other", "/api", "/static/",
     "/dashboards", "/elsewhere", "/api/studies/1%0a", "/%2fdashboard", "/api/studies/x/param_importances"],
)  # fmt: skip
def test_nothing_else_is_there(client: TestClient, path: str) -> None:
    answer = client.get(path, headers={"X-API-Key": SECRET})
    assert answer.status_code == 404 and "/dashboard/" in problem(answer)


def test_an_error_inside_says_nothing_of_itself(client: TestClient) -> None:
    answer = client.get("/dashboard/broken", headers={"X-API-Key": SECRET})
    assert answer.status_code == 500 and "went wrong" in problem(answer)


def test_a_person_is_led_to_the_form_and_back(client: TestClient) -> None:
    assert client.get("/").headers["location"] == "/dashboard/"
    answer = client.get("/dashboard/studies/3?x=1&y=2", headers=HTML)
    assert answer.status_code == 303
    form = client.get(answer.headers["location"])
    assert form.status_code == 200 and 'value="/dashboard/studies/3?x=1&amp;y=2"' in form.text
    done = client.post("/login", data={"key": f" {SECRET} ", "next": "/dashboard/studies/3?x=1&y=2"})
    assert done.status_code == 303 and done.headers["location"] == "/dashboard/studies/3?x=1&y=2"
    assert client.get("/dashboard/studies/3", headers=HTML).status_code == 200
    assert client.get("/login?next=/dashboard/studies/4").headers["location"] == "/dashboard/studies/4"
    assert "anna" in client.get("/login").text
    assert client.post("/logout").headers["location"] == "/login"
    assert client.get("/dashboard/", headers=HTML).status_code == 303


def test_the_form_loads_nothing_and_runs_nothing(client: TestClient) -> None:
    form = client.get('/login?next=/dashboard/"><script>alert(1)</script>')
    policy = form.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "<script" not in form.text and not re.search(r"(src|href)=\"(?!data:,)", form.text)
    assert form.headers["cache-control"] == "no-store"


def test_the_cookie_is_for_this_site_alone_and_holds_no_key(client: TestClient, book: Book) -> None:
    set_cookie = client.post("/login", data={"key": SECRET}).headers["set-cookie"]
    assert "HttpOnly" in set_cookie and "SameSite=strict" in set_cookie and "Secure" not in set_cookie
    assert "Max-Age=43200" in set_cookie and "x" * 43 not in set_cookie and book.digest not in set_cookie
    encrypted = client_of(Guard(echo, Login(book)), "https://testserver")
    assert "Secure" in encrypted.post("/login", data={"key": SECRET}).headers["set-cookie"]


@pytest.mark.parametrize(
    "address",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/login", "", "javascript:alert(1)",
     "/dashboard/\r\nSet-Cookie: a=b", "/dashboard\\@evil", "/v1/studies"],
)  # fmt: skip
def test_the_way_back_leads_nowhere_else(client: TestClient, address: str) -> None:
    assert local(address) == "/dashboard/"
    answer = client.post("/login", data={"key": SECRET, "next": address})
    assert answer.headers["location"] == "/dashboard/"


@pytest.mark.parametrize(
    "change",
    [lambda c: c[:-1] + ("0" if c[-1] != "0" else "1"), lambda c: c.replace("abcd1234", "abcd1235"),
     lambda c: re.sub(r"\.(\d+)\.", lambda m: f".{int(m[1]) + 1}.", c), lambda c: "", lambda c: c + "0",
     lambda c: SECRET],
)  # fmt: skip
def test_a_changed_cookie_opens_nothing(client: TestClient, change: Callable[[str], str]) -> None:
    sign_in(client)
    cookie = change(client.cookies[COOKIE])
    client.cookies.clear()
    client.cookies.set(COOKIE, cookie)
    assert client.get("/api/studies").status_code == 401


def test_a_session_ends_with_its_key_and_with_its_time(book: Book) -> None:
    now = time.time()
    book.key = replace(KEY, expires_at=now + 100)
    moments = [now]
    client = client_of(Guard(echo, Login(book, lambda: moments[-1])))
    sign_in(client)
    cookie = client.cookies[COOKIE]
    headers = {"Cookie": f"{COOKIE}={cookie}"}
    fresh = client_of(client.app)  # type: ignore[arg-type]
    assert fresh.get("/api/studies", headers=headers).status_code == 200
    other = client_of(Guard(echo, Login(book, lambda: now)))  # another process of the service
    assert other.get("/api/studies", headers=headers).status_code == 200
    moments.append(now + 101)
    assert fresh.get("/api/studies", headers=headers).status_code == 401
    book.key = replace(KEY, revoked_at=now)
    assert other.get("/api/studies", headers=headers).status_code == 401


def test_the_form_does_not_take_guesses_for_ever(client: TestClient) -> None:
    for _ in range(10):
        answer = client.post("/login", data={"key": "ms_abcd1234_" + "z" * 43, "next": "/dashboard/studies/1"})
        assert answer.status_code == 401 and "not accepted" in answer.text and "/dashboard/studies/1" in answer.text
    answer = client.post("/login", data={"key": SECRET})
    assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1


def test_headers_do_not_take_guesses_for_ever(client: TestClient) -> None:
    codes = [client.get("/api/studies", headers={"X-API-Key": "ms_a_" + "z" * 43}).status_code for _ in range(12)]
    assert codes[:10] == [401] * 10 and codes[11] == 429
    assert client.get("/api/studies", headers={"X-API-Key": SECRET}).status_code == 200


def test_a_form_is_no_place_for_megabytes(client: TestClient) -> None:
    assert client.post("/login", content=b"key=" + b"x" * 5000).status_code == 413
    assert client.put("/login").status_code == 405
    assert client.get("/logout").headers["allow"] == "POST"


@pytest.fixture
def studied(store: Store) -> Iterator[Store]:
    """A store with one study and its copy."""
    filled = Filled(store, make_spec(space={"layers": 2}))
    filled.fill(12)
    mirror = Mirror(mirror_url(store.url), filled.study, filled.space, store, lambda text: pytest.fail(text))
    mirror.finish()
    mirror.close()
    yield store


def test_the_real_dashboard_shows_the_study_to_who_has_a_key(studied: Store) -> None:
    key, secret = studied.keys.create("anna", ["run"])
    client = client_of(make_dashboard(mirror_url(studied.url), studied.keys))  # type: ignore[arg-type]
    assert client.get("/api/studies").status_code == 401
    sign_in(client, secret)
    page = client.get("/dashboard/", headers=HTML)
    assert page.status_code == 200 and "/static/bundle.js" in page.text
    summaries = client.get("/api/studies").json()["study_summaries"]
    assert [s["study_name"] for s in summaries] == ["test"]
    study = client.get(f"/api/studies/{summaries[0]['study_id']}?after=4").json()
    assert len(study["trials"]) == 8 and "running" in study["note"]["body"]
    assert [g["id"] for g in study["plotly_graph_objects"]] == ["layers"]
    assert client.get("/static/bundle.js", headers={"Accept-Encoding": ""}).status_code == 200
    request = client.build_request("GET", "/static/bundle.js")
    del request.headers["accept-encoding"]
    assert client.send(request).status_code == 200
    assert client.head("/dashboard/").content == b""
    studied.keys.revoke(key.prefix)
    assert client.get("/api/studies").status_code == 401


def test_at_home_there_is_no_key_and_no_other_name(studied: Store) -> None:
    app = make_local_dashboard(mirror_url(studied.url))
    client = client_of(app, "http://localhost:8080")  # type: ignore[arg-type]
    assert client.get("/dashboard/").status_code == 200 and client.get("/api/studies").status_code == 200
    assert client.delete("/api/studies/1").status_code == 405 and client.get("/login").status_code == 404
    for base in ("http://127.0.0.1:9", "http://[::1]:9"):
        assert client_of(app, base).get("/api/meta").status_code == 200  # type: ignore[arg-type]
    for base in ("http://evil.example", "http://localhost.evil.example:8080"):
        assert client_of(app, base).get("/api/studies").status_code == 403  # type: ignore[arg-type]


def test_copies_that_cannot_be_opened_are_a_problem(tmp_path: Path) -> None:
    client = client_of(make_local_dashboard(f"sqlite:///{tmp_path}/no/folder/x.db"), "http://localhost")  # type: ignore[arg-type]
    answer = client.get("/dashboard/")
    assert answer.status_code == 503 and "mergesearch migrate" in problem(answer)
    assert client.get("/dashboard/").status_code == 503
