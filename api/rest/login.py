"""Signing in to the dashboard with a browser: an API key typed into a form, then a cookie for half a day.

The cookie does not hold the key. It says which key it stands for and until when, and carries a signature that
only who knows the key's stored digest can make; so every process of the service accepts it, and a key that is
revoked or expires takes its cookies along.
"""

import hmac
import html
import re
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Protocol
from urllib.parse import parse_qs, quote

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from api.rest.auth import REALM
from api.rest.limits import Buckets
from api.rest.problems import problem_response
from db.records import ApiKey

COOKIE = "mergesearch_session"
HOME = "/dashboard/"
_SESSION = re.compile(r"([A-Za-z0-9]{1,16})\.([0-9]{1,12})\.([0-9a-f]{64})")
_SECONDS = 12 * 60 * 60
_MOST_BYTES = 4096
_TRIES_A_MINUTE = 10

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; display: grid; place-items: center; min-height: 100vh; margin: 0;
  background: light-dark(#f3f5f8, #14181d); color: light-dark(#1c2733, #e4e9ef); }
main { background: light-dark(#fff, #1e242b); padding: 2rem; border-radius: 10px; width: min(24rem, 85vw);
  box-shadow: 0 8px 28px rgb(0 0 0 / 12%); }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; }
p { margin: 0 0 1.2rem; color: light-dark(#57636f, #9aa7b4); }
label { display: block; font-weight: 600; margin-bottom: .3rem; }
input { width: 100%; box-sizing: border-box; font: inherit; padding: .55rem .7rem; border-radius: 6px;
  border: 1px solid light-dark(#b9c3cd, #46525e); background: transparent; color: inherit; }
button { margin-top: 1.1rem; width: 100%; font: inherit; font-weight: 600; padding: .6rem; border: 0;
  border-radius: 6px; background: #1c6299; color: #fff; cursor: pointer; }
button.quiet { background: transparent; color: inherit; border: 1px solid light-dark(#b9c3cd, #46525e); }
a { color: light-dark(#1c6299, #6fb3e6); }
.wrong { color: light-dark(#a3211b, #ff9d97); font-weight: 600; }
code { font-size: .92em; }
"""
_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}
_WRONG = "This key is not accepted: it is unknown, expired or revoked."


class KeyBook(Protocol):
    """Who knows the API keys; `db.keys.Keys` is one."""

    def authenticate(self, secret: str) -> ApiKey | None:
        """The valid key with that secret."""

    def by_prefix(self, prefix: str) -> tuple[ApiKey, str] | None:
        """The valid key of that prefix and its digest."""


@dataclass(frozen=True)
class Session:
    """A cookie's value, and for how many seconds it is good."""

    value: str
    seconds: int


class Login:
    """The pages `/login` and `/logout`, and who may come in.

    Args:
        clock: seconds since 1970.
    """

    def __init__(self, keys: KeyBook, clock: Callable[[], float] = time.time) -> None:
        self._keys, self._clock = keys, clock
        self._tries = Buckets(_TRIES_A_MINUTE)

    def key_of(self, request: Request) -> ApiKey | None:
        """The valid key that a request shows, in a header or as a session."""
        secret = secret_of(request)
        if secret is not None:
            return self._keys.authenticate(secret)
        return self._session_key(request.cookies.get(COOKIE, ""))

    def wait(self, request: Request) -> float:
        """Count a try to come in; the seconds to wait before the next, 0 if it may be made now."""
        return self._tries.take(request.client.host if request.client else "unknown")

    async def answer(self, request: Request) -> Response:
        """Answer a request for `/login` or `/logout`."""
        signing_out = request.scope["path"] == "/logout"
        if request.method == "POST":
            return self._sign_out(request) if signing_out else await self._sign_in(request)
        if request.method not in ("GET", "HEAD") or signing_out:
            allowed = "POST" if signing_out else "GET, HEAD, POST"
            detail = f"{request.method} is not possible here; use {allowed}"
            return problem_response(405, "wrong-method", detail, headers={"Allow": allowed})
        key = await run_in_threadpool(self.key_of, request)
        if key is None:
            return _form(request.query_params.get("next", ""))
        if "next" in request.query_params:
            return RedirectResponse(local(request.query_params["next"]), 303, {"Cache-Control": "no-store"})
        return _signed_in(key)

    async def _sign_in(self, request: Request) -> Response:
        wait = self.wait(request)
        if wait:
            said = f"Too many tries; try again in {wait + 1:.0f} seconds."
            return _form("", said, 429, {"Retry-After": f"{wait + 1:.0f}"})
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_BYTES:
                return problem_response(413, "too-large", f"a form of more than {_MOST_BYTES} bytes is no API key")
        fields = parse_qs(body.decode("latin-1"), max_num_fields=10)
        secret, onward = fields.get("key", [""])[0].strip(), fields.get("next", [""])[0]
        session = await run_in_threadpool(self._begin, secret)
        if session is None:
            return _form(onward, _WRONG, 401, {"WWW-Authenticate": REALM})
        response = RedirectResponse(local(onward), 303, {"Cache-Control": "no-store"})
        response.set_cookie(
            COOKIE,
            session.value,
            max_age=session.seconds,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return response

    def _sign_out(self, request: Request) -> Response:
        response = RedirectResponse("/login", 303, {"Cache-Control": "no-store"})
        response.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return response

    def _begin(self, secret: str) -> Session | None:
        key = self._keys.authenticate(secret)
        found = self._keys.by_prefix(key.prefix) if key else None
        if found is None:
            return None
        now = int(self._clock())
        until = min(now + _SECONDS, int(found[0].expires_at or now + _SECONDS))
        return Session(f"{found[0].prefix}.{until}.{_sign(found[0].prefix, until, found[1])}", until - now)

    def _session_key(self, cookie: str) -> ApiKey | None:
        parts = _SESSION.fullmatch(cookie)
        if parts is None or int(parts[2]) <= self._clock():
            return None
        found = self._keys.by_prefix(parts[1])
        signed = found is not None and hmac.compare_digest(parts[3], _sign(parts[1], int(parts[2]), found[1]))
        return found[0] if found and signed else None


def secret_of(request: Request) -> str | None:
    """The API key in a request's headers, whatever it is worth."""
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    return request.headers.get("x-api-key")


def local(address: str) -> str:
    """The address if it is a page of the dashboard, else the dashboard's first: never another site's."""
    good = address.startswith("/dashboard") and "\\" not in address and address.isprintable()
    return address if good else HOME


def login_address(request: Request) -> str:
    """The form's address, from which one comes back to the page that was asked for."""
    query = request.scope["query_string"].decode("latin-1")
    return f"/login?next={quote(request.scope['path'] + (f'?{query}' if query else ''), safe='')}"


def _sign(prefix: str, until: int, digest: str) -> str:
    return hmac.new(digest.encode(), f"dashboard session {prefix}.{until}".encode(), sha256).hexdigest()


def _form(onward: str, said: str = "", status: int = 200, headers: dict[str, str] | None = None) -> Response:
    wrong = f'<p class="wrong" role="alert">{html.escape(said)}</p>' if said else ""
    content = (
        f"<h1>mergesearch</h1><p>Sign in to the dashboard with an API key.</p>{wrong}"
        '<form method="post" action="/login"><label for="key">API key</label>'
        '<input id="key" name="key" type="password" required autofocus autocomplete="current-password" '
        'spellcheck="false" placeholder="ms_…">'
        f'<input type="hidden" name="next" value="{html.escape(local(onward))}">'
        "<button>Sign in</button></form>"
    )
    return _page("Sign in", content, status, headers)


def _signed_in(key: ApiKey) -> Response:
    content = (
        f"<h1>mergesearch</h1><p>You are signed in with the key <code>{html.escape(key.name)}</code>.</p>"
        f'<a href="{HOME}">Open the dashboard</a>'
        '<form method="post" action="/logout"><button class="quiet">Sign out</button></form>'
    )
    return _page("Signed in", content)


def _page(title: str, content: str, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title} · mergesearch</title><link rel="icon" href="data:,"><style>{_STYLE}</style>'
    )
    text = f'<!doctype html><html lang="en"><head>{head}</head><body><main>{content}</main></body></html>'
    return HTMLResponse(text, status, _HEADERS | (headers or {}))
