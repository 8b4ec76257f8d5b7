"""What one caller may ask for: so many requests a minute, so many bytes a body."""

import math
import time
from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.rest.problems import Refused, respond

_MOST_CALLERS = 10_000  # the longest unheard are forgotten, and with them at most one minute of requests


class Buckets:
    """A token bucket for each caller: it holds a minute's requests and refills evenly. For one process.

    Args:
        per_minute: requests a minute, and as many at once.
        clock: seconds that only grow.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._rate, self._clock = float(per_minute), per_minute / 60, clock
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def take(self, caller: str) -> float:
        """Take one token; 0, or the seconds until there will be one."""
        now = self._clock()
        with self._lock:
            left, since = self._left.pop(caller, (self._most, now))
            left = min(self._most, left + (now - since) * self._rate)
            enough = left >= 1
            self._left[caller] = (left - 1 if enough else left, now)
            if len(self._left) > _MOST_CALLERS:
                self._left.popitem(last=False)
        return 0.0 if enough else (1 - left) / self._rate


def too_many(seconds: float, what: str) -> Refused:
    """The refusal of a caller that asks too often."""
    wait = max(1, math.ceil(seconds))
    return Refused(429, "too-many-requests", f"{what}; try again in {wait} s", headers={"Retry-After": str(wait)})


class BodyLimit:
    """Refuses bodies of more bytes than that: at once where their length is announced, else when they get there."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, its body counted."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        announced = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        if announced.isdigit() and int(announced) > self._most:
            refused = self._refused()
            return await respond(refused.content, refused.headers)(scope, receive, send)
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise self._refused()
            return message

        await self._app(scope, counted, send)

    def _refused(self) -> Refused:
        detail = f"the body has more than the {self._most} bytes that are accepted; send a smaller one"
        return Refused(413, "too-large", detail, headers={"Connection": "close"})
