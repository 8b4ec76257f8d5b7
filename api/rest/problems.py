"""Refusals as RFC 9457 `application/problem+json`, and what each error of the house becomes.

One form for all of them: what is wrong, where, and what to do about it. An error that nobody foresaw says
nothing of itself here, only the id under which the log has it.
"""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from api.rest.context import CALL
from db.jobs import IdempotencyMismatch
from merging.errors import Conflict, InvalidInput, MergesearchError, NotFound

MEDIA_TYPE = "application/problem+json"
_MOST = 300  # characters of a value that are shown again
TITLES = {
    "invalid-input": "The request cannot work as it is",
    "no-key": "An API key is needed",
    "wrong-key": "The API key is not accepted",
    "wrong-scope": "The API key may not do this",
    "not-found": "There is no such thing",
    "wrong-method": "The method is not possible here",
    "conflict": "The state of things does not allow it",
    "too-large": "The body is too large",
    "wrong-media-type": "The body's media type is not accepted",
    "wrong-range": "The range cannot be served",
    "too-many-requests": "Too many requests",
    "internal": "The service failed",
    "unavailable": "The service cannot do this now",
}


class Problem(BaseModel):
    """A refusal.

    Attributes:
        type: names the kind of problem, for programs.
        detail: what is wrong and what to do, in one sentence.
        instance: the path that was asked for.
        request_id: finds the request in the service's log.
        key, value, remedy: where the request cannot work: the key, what stood there, what to do about it.
    """

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:mergesearch:problem:not-found"])
    title: str
    status: int
    detail: str
    instance: str | None = None
    request_id: str | None = None
    key: str | None = None
    value: Any = None
    remedy: str | None = None


class Refused(HTTPException):
    """Ends the work on a request with a problem.

    Args:
        kind: one of TITLES.
        more: further members of the problem.
    """

    def __init__(
        self, status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.content = problem_content(status, kind, detail, **more)


def problem_content(status: int, kind: str | None, detail: str, **more: Any) -> dict[str, Any]:
    """The members of a problem, as plain JSON; `kind` None stands for what HTTP itself says of the status."""
    known = kind in TITLES
    return {
        "type": f"urn:mergesearch:problem:{kind}" if known else "about:blank",
        "title": TITLES[kind] if kind and known else HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **{name: value for name, value in more.items() if value is not None},
    }


def content_of(error: MergesearchError) -> dict[str, Any]:
    """The problem that an error of the house becomes; a job keeps it for whoever asks."""
    if isinstance(error, InvalidInput):
        shown = "" if error.value is None else f"{_short(repr(error.value))} "
        return problem_content(
            422,
            "invalid-input",
            f"{error.key}: {shown}{error.problem}; {error.remedy}",
            key=error.key,
            value=_plain(error.value),
            remedy=error.remedy,
        )
    if isinstance(error, IdempotencyMismatch):
        return problem_content(422, "invalid-input", str(error), key="Idempotency-Key")
    if isinstance(error, NotFound):
        return problem_content(404, "not-found", str(error))
    return problem_content(409, "conflict", str(error)) if isinstance(error, Conflict) else failure()


def failure() -> dict[str, Any]:
    """The problem of an error that nobody foresaw. Its text stays in the log."""
    return problem_content(500, "internal", "something went wrong; the service's log has it under the request's id")


def problem_response(
    status: int, kind: str | None, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> Response:
    """The answer that refuses a request.

    Args:
        kind: one of TITLES, or None.
        more: further members of the problem.
    """
    return respond(problem_content(status, kind, detail, **more), headers)


def respond(content: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """The answer with that problem, which also names the request."""
    call = CALL.get()
    about = {"instance": call.path, "request_id": call.request_id} if call else {}
    body = json.dumps({**content, **about}, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")
    return Response(body, content["status"], dict(headers or {}), MEDIA_TYPE)


def _plain(value: Any) -> Any:
    """The value if it is short JSON, else what it looks like."""
    try:
        return value if len(json.dumps(value, allow_nan=False)) <= _MOST else _short(repr(value))
    except (TypeError, ValueError, RecursionError):
        return _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= _MOST else f"{text[:_MOST]}…"
