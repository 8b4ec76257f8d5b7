"""How errors become problems: those of the house, of FastAPI, of HTTP itself."""

import re
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from api.rest.problems import Refused, content_of, problem_content, problem_response, respond
from db.session import BrokenDatabase
from merging.errors import InvalidInput, MergesearchError


def add_handlers(app: FastAPI) -> None:
    """Have every refusal of the application be a problem."""
    app.add_exception_handler(MergesearchError, _house)
    app.add_exception_handler(BrokenDatabase, _database)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)


class Elsewhere:
    """Paths that no route has: the dashboard's, if there is one; those under `/v1` are nobody's.

    Asked only when no route has the path, so that a wrong method on a route stays a wrong method.
    """

    def __init__(self, dashboard: ASGIApp | None) -> None:
        self._dashboard = dashboard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand the request on, or say that there is nothing."""
        ours = scope["path"] == "/v1" or scope["path"].startswith("/v1/")
        if self._dashboard is not None and not ours:
            return await self._dashboard(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1000})
        detail = "there is nothing at this path; `GET /v1/openapi.json` lists what there is"
        await problem_response(404, "not-found", detail)(scope, receive, send)


async def _house(request: Request, error: Exception) -> Response:
    assert isinstance(error, MergesearchError)
    return respond(content_of(error))


async def _database(request: Request, error: Exception) -> Response:
    detail = "the database cannot be used now; try again in a moment"
    return problem_response(503, "unavailable", detail, headers={"Retry-After": "5"})


async def _validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    value = first.get("input")
    shown = value if isinstance(value, str | int | float) else None
    problem = "is not valid" if shown is not None else "is missing or not valid"
    return respond(content_of(InvalidInput(key, shown, problem, first["msg"][:1].lower() + first["msg"][1:])))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if isinstance(error, Refused):
        return respond(error.content, error.headers)
    if error.status_code != 405:
        return respond(problem_content(error.status_code, None, str(error.detail)), error.headers)
    allowed = ", ".join(_methods(request))
    detail = f"{request.method} is not possible here; use {allowed}"
    return problem_response(405, "wrong-method", detail, headers={"Allow": allowed})


def _methods(request: Request) -> list[str]:
    """The methods of a path. Each is a route of its own, so the router only knows those of the first."""
    paths: dict[str, dict[str, Any]] = request.app.openapi()["paths"]
    path = request.scope["path"]
    found = {
        method.upper()
        for template, methods in paths.items()
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path)
        for method in methods
    }
    return sorted(found) or ["GET", "HEAD"]
