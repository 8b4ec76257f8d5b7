"""The Optuna dashboard behind a guard. It knows no users, writes as readily as it reads, and some of its answers
cost minutes; so only what its pages need is passed on, only reading, and only for who has a key.

It works at the root of the address alone (`/dashboard`, `/api`, `/static`), which is why our own API is
under `/v1`.
"""

import logging
import re
from threading import Lock
from typing import Any

from a2wsgi import WSGIMiddleware
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.rest.auth import REALM, too_often, wrong_key
from api.rest.login import HOME, KeyBook, Login, login_address, secret_of
from api.rest.problems import failure, problem_response, respond

_THREADS = 4
_PLACE = re.compile(r"/(dashboard|api|static|csv|artifacts)(/.*)?|/favicon\.ico")
_PASSED = re.compile(
    r"/dashboard(/.*)?|/static/.+|/favicon\.ico|/api/(meta|studies|studies/[0-9]+(/param_importances)?)/*"
)
_COSTLY = re.compile(r"/api/studies/[^/]+/plot(/.*)?|/csv(/.*)?")  # a plot was measured to take minutes and gigabytes
_QUERY = re.compile(rb"after=[0-9]{1,9}")
_HEADERS_PASSED = (b"host", b"accept", b"accept-encoding", b"if-modified-since", b"if-none-match")
_HEADERS_ADDED = {"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "same-origin"}
_LOOPBACK = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:[0-9]+)?")

log = logging.getLogger("mergesearch.dashboard")


def make_dashboard(url: str, keys: KeyBook) -> ASGIApp:
    """The dashboard over the studies' copies at that URL, for who has an API key.

    Args:
        url: as `search.mirror.mirror_url` gives it; opened with the first request.
    """
    return Guard(_Lazy(url), Login(keys))


def make_local_dashboard(url: str) -> ASGIApp:
    """The dashboard over the copies at that URL, for everybody on this machine: to be served on loopback only.

    A page from elsewhere cannot read it under a name of its own that leads here: the host must be named as loopback is.
    """
    return Guard(_Lazy(url), None)


class Guard:
    """Lets pass what the dashboard's pages read.

    Args:
        dashboard: the dashboard itself.
        login: knows who may read it; None: whoever comes over loopback.
    """

    def __init__(self, dashboard: ASGIApp, login: Login | None) -> None:
        self._dashboard, self._login = dashboard, login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or pass the request on."""
        if scope["type"] == "lifespan":
            return await _live(receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1000})
        request = Request(scope, receive)
        answer = await self._answer(request)
        if answer is not None:
            return await answer(scope, receive, send)
        await self._pass(scope, receive, send)

    async def _answer(self, request: Request) -> Response | None:
        """The guard's own answer; None where the dashboard is to answer."""
        path = request.scope["path"]  # as it is passed on; a URL made of it may read otherwise
        if self._login is None and not _LOOPBACK.fullmatch(request.headers.get("host", "")):
            return problem_response(403, "wrong-scope", "this dashboard is for this machine only; call it localhost")
        if path == "/":
            return RedirectResponse(HOME, 307)
        if self._login is not None and path in ("/login", "/logout"):
            return await self._login.answer(request)
        if not _PLACE.fullmatch(path):
            return _nothing()
        if request.method not in ("GET", "HEAD"):
            detail = f"{request.method} is not possible here: the dashboard only shows; use the API under /v1"
            return problem_response(405, "wrong-method", detail, headers={"Allow": "GET, HEAD"})
        if self._login is not None and await run_in_threadpool(self._login.key_of, request) is None:
            return _unknown(request, self._login)
        if _COSTLY.fullmatch(path):
            detail = "this is switched off, because one such request can occupy the service for minutes; "
            return problem_response(403, "wrong-scope", detail + "GET /v1/studies/{name}/trials has all numbers")
        return None if _PASSED.fullmatch(path) else _nothing()

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Have the dashboard answer, with nothing of the request that it does not need."""
        headers = [(name, value) for name, value in scope["headers"] if name in _HEADERS_PASSED]
        if not any(name == b"accept-encoding" for name, _ in headers):
            headers.append((b"accept-encoding", b"identity"))  # without any, the dashboard fails
        query = scope["query_string"] if _QUERY.fullmatch(scope["query_string"]) else b""
        broken = False

        async def checked(message: Message) -> None:
            nonlocal broken
            if message["type"] == "http.response.start":
                broken = message["status"] == 500
                if broken:
                    return await respond(failure())(scope, receive, send)
                _stamp(message, scope["path"])
            if not broken:
                await send(message)

        await self._dashboard({**scope, "headers": headers, "query_string": query}, receive, checked)


class _Lazy:
    """The dashboard's ASGI application, loaded with the first request: that takes seconds and a database."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = Lock()
        self._loaded: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            app = await run_in_threadpool(self._load) if self._loaded is None else self._loaded
        except Exception as error:
            log.error("the dashboard cannot be opened (%s)", " ".join(str(error).split()))
            detail = "the studies' copies cannot be opened; is the database up, and has `mergesearch migrate` been run?"
            answer = problem_response(503, "unavailable", detail, headers={"Retry-After": "5"})
            return await answer(scope, receive, send)
        await app(scope, receive, send)

    def _load(self) -> ASGIApp:
        from search.mirror import dashboard

        with self._lock:
            if self._loaded is None:
                made: Any = WSGIMiddleware(dashboard(self._url), workers=_THREADS)  # type: ignore[arg-type]
                self._loaded = made
            return self._loaded


async def _live(receive: Receive, send: Send) -> None:
    """Take part in a server's start and end, where there is nothing to do."""
    while True:
        kind = (await receive())["type"]
        await send({"type": f"{kind}.complete"})
        if kind == "lifespan.shutdown":
            return


def _unknown(request: Request, login: Login) -> Response:
    """The answer to who shows no valid key: the form for a person, a challenge for a program."""
    if secret_of(request) is not None:
        wait = login.wait(request)
        refused = too_often(wait) if wait else wrong_key()
        return respond(refused.content, refused.headers)
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(login_address(request), 303, {"Cache-Control": "no-store"})
    detail = "send an API key as `Authorization: Bearer ms_…`, or sign in at /login"
    return problem_response(401, "no-key", detail, headers={"WWW-Authenticate": REALM})


def _nothing() -> Response:
    return problem_response(404, "not-found", "there is nothing at this path; the dashboard is at /dashboard/")


def _stamp(message: Message, path: str) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in _HEADERS_ADDED.items():
        headers.setdefault(name, value)
    headers["Cache-Control"] = "private, max-age=3600" if path.startswith("/static/") else "no-store"
