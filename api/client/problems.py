"""What a service refuses, as errors of the house; the messages are those the embedded commands print."""

import json
from collections.abc import Mapping
from typing import Any

from merging.errors import Conflict, InvalidInput, MergesearchError, NotFound

_PASSING = (429, 502, 503, 504)
_KEY = "MERGESEARCH_KEY"


class ServiceError(MergesearchError):
    """The service cannot be reached, does not accept our key, or failed.

    Attributes:
        status: of its answer; None where there was none.
        passing: whether the same request may work in a moment.
        wait: how many seconds the service asks to wait, if it does.
    """

    def __init__(
        self, message: str, *, status: int | None = None, passing: bool = False, wait: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.passing, self.wait = status, passing, wait


class RefusedInput(InvalidInput):
    """The service says that the request cannot work, in these words.

    Args:
        said: the whole message.
    """

    def __init__(self, key: str, value: object, problem: str, remedy: str, said: str) -> None:
        super().__init__(key, value, problem, remedy)
        self.said = said

    def __str__(self) -> str:
        """What the service said: values look there as they do here, whatever JSON made of them on the way."""
        return self.said

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), (self.key, self.value, self.problem, self.remedy, self.said)


def error_of(server: str, status: int, headers: Mapping[str, str], body: bytes) -> MergesearchError:
    """The error that an answer of 300 or more stands for."""
    if status < 400:
        there = _plain(headers.get("location", "another place"))
        return ServiceError(f"{server} points to {there}; name that with --server if you trust it", status=status)
    try:
        content = json.loads(body)
        detail = content["detail"]
    except (ValueError, TypeError, KeyError):
        return not_ours(server, status)
    if not isinstance(detail, str):
        return not_ours(server, status)
    return error_of_problem({**content, "status": status}, _seconds(headers.get("retry-after")))


def error_of_problem(content: Mapping[str, Any], wait: float | None = None) -> MergesearchError:
    """The error that a problem document stands for."""
    status, said = (
        content.get("status"),
        _plain(str(content.get("detail") or content.get("title") or "no reason given")),
    )
    if status == 422:
        return _refused_input(content, said)
    if status == 404:
        return NotFound(said)
    if status == 409:
        return Conflict(said)
    if status == 401:
        said += f"; put a valid one into {_KEY}"
    elif status == 403:
        said += f"; put a key that has it into {_KEY}"
    elif isinstance(status, int) and status >= 500 and content.get("request_id"):
        said += f" (request {_plain(str(content['request_id']))})"
    known = status if isinstance(status, int) else None
    return ServiceError(said, status=known, passing=known in _PASSING, wait=wait)


def not_ours(server: str, status: int) -> ServiceError:
    """The error of an answer that no mergesearch service gives; a proxy in front of one may, for a while."""
    return ServiceError(
        f"{server} answers ({status}), but not as mergesearch does; name the service with --server",
        status=status,
        passing=status in _PASSING,
    )


def unreachable(server: str, cause: str) -> ServiceError:
    """The error of a service that nobody serves."""
    why = f" ({_plain(cause)})" if cause else ""
    remedy = "start one with `mergesearch serve`, or name another with --server"
    return ServiceError(f"no service answers at {server}{why}; {remedy}", passing=True)


def _refused_input(content: Mapping[str, Any], said: str) -> RefusedInput:
    key, value, remedy = str(content.get("key") or "request"), content.get("value"), str(content.get("remedy") or "")
    shown = "" if value is None else f"{value!r} "
    problem = said.removeprefix(f"{key}: ").removeprefix(shown).removesuffix(f"; {remedy}")
    return RefusedInput(key, value, problem, remedy, said)


def _seconds(text: str | None) -> float | None:
    return float(text) if text and text.isascii() and text.isdigit() else None


def _plain(text: str) -> str:
    """Text from elsewhere, without what could steer a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)
