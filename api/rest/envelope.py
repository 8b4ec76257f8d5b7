"""Around every request: its id, its line in the log, its count in the metrics, headers that browsers heed, and
an answer also when something breaks that nobody foresaw."""

import logging
import re
import time
from collections.abc import Callable

from anyio import BrokenResourceError, ClosedResourceError
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.rest.context import CALL, Call, request_id
from api.rest.problems import failure, problem_content, respond

log = logging.getLogger("mergesearch.api")
_QUIET = ("/healthz", "/readyz", "/metrics")  # asked for all day long
_GONE = (ClientDisconnect, BrokenResourceError, ClosedResourceError)  # of who broke the connection off
_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")  # what may stand in a log line as it was sent
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
_OF_THE_API = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


class Envelope:
    """Outermost of our own layers.

    Args:
        is_away: whether an exception means that the database cannot be reached.
        count: is told method, route template, status and seconds of every request.
    """

    def __init__(
        self, app: ASGIApp, is_away: Callable[[BaseException], bool], count: Callable[[str, str, int, float], None]
    ) -> None:
        self._app, self._is_away, self._count = app, is_away, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request, whatever comes of it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        call = Call(request_id(Headers(scope=scope).get("x-request-id")), scope["path"])
        token, began, status = CALL.set(call), time.monotonic(), 0

        async def stamped(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                _stamp(message, call)
            await send(message)

        try:
            try:
                await self._app(scope, receive, stamped)
            except Exception as error:
                if _is_gone(error):
                    return
                if status:  # half an answer is out: all that can be done is to cut it off
                    raise
                away = self._is_away(error)
                log.error("request failed", exc_info=not away, extra=_about(scope, call))
                await (_unavailable() if away else respond(failure()))(scope, receive, stamped)
        finally:
            seconds = time.monotonic() - began
            self._count(scope["method"], template(scope), status or 499, seconds)
            level = logging.DEBUG if call.path in _QUIET else logging.INFO
            path = call.path.encode("unicode_escape").decode()  # one line, whatever was asked for
            log.log(level, "%s %s %s %.0f ms", scope["method"], path, status, 1000 * seconds, extra=_about(scope, call))
            CALL.reset(token)


def _is_gone(error: BaseException) -> bool:
    """Whether nobody waits for the answer any more: no failure of ours, and nobody to tell."""
    if isinstance(error, BaseExceptionGroup):
        return all(_is_gone(one) for one in error.exceptions)
    return isinstance(error, _GONE)


def template(scope: Scope) -> str:
    """The path as it was declared, so that there are as many as there are routes."""
    return getattr(scope.get("route"), "path", None) or "other"


def _unavailable() -> ASGIApp:
    detail = "the database cannot be reached; try again in a moment"
    return respond(problem_content(503, "unavailable", detail), {"Retry-After": "5"})


def _stamp(message: Message, call: Call) -> None:
    headers = MutableHeaders(scope=message)
    headers["X-Request-ID"] = call.request_id
    of_the_api = call.path.startswith("/v1/") or call.path in _QUIET
    for name, value in (_HEADERS | (_OF_THE_API if of_the_api else {})).items():
        headers.setdefault(name, value)


def _about(scope: Scope, call: Call) -> dict[str, object]:
    """What goes with a log line; a study where the request names one."""
    found = {"action": "request", "request": call.request_id}
    study = scope.get("path_params", {}).get("name")
    named = call.path.startswith("/v1/studies/") and _NAME.fullmatch(study or "")
    return found | ({"study": study} if named else {})
