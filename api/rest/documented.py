"""The OpenAPI document: what FastAPI cannot know of bodies that we read ourselves and of refusals."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from api.rest.problems import MEDIA_TYPE, Problem
from api.rest.views import ExportRequest
from search.study import StudySpec

_REF = "#/components/schemas/{model}"
_SAID = {
    401: "No API key, or one that is not accepted",
    403: "The API key lacks the scope",
    404: "There is no such thing",
    409: "The state of things does not allow it",
    413: "The body is too large",
    415: "The body's media type is not accepted",
    416: "The range cannot be served",
    422: "The request cannot work as it is",
    429: "Too many requests",
    500: "The service failed",
    503: "The service cannot do this now",
}
_EVERYWHERE = (401, 403, 422, 429, 500, 503)
Responses = dict[int | str, dict[str, Any]]


def refusals(*statuses: int) -> Responses:
    """The documented refusals of a route: these and those that any route may give."""
    return {status: _refusal(status) for status in sorted({*statuses, *_EVERYWHERE})}


def body_of(model: type[StudySpec] | type[ExportRequest], *, required: bool) -> dict[str, Any]:
    """`openapi_extra` of a route that reads this body itself. Of YAML generators of clients know nothing."""
    schema = {"$ref": _REF.format(model=model.__name__)}
    return {"requestBody": {"required": required, "content": {"application/json": {"schema": schema}}}}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        for model in (StudySpec, ExportRequest, Problem):
            schema = model.model_json_schema(ref_template=_REF)
            schemas |= {**schema.pop("$defs", {}), model.__name__: schema}
        schemas["ExpertSpec"]["required"] = ["path"]  # the name defaults to the path's last part
        app.openapi_schema = made
    return app.openapi_schema


def _refusal(status: int) -> dict[str, Any]:
    schema = {"$ref": _REF.format(model=Problem.__name__)}
    return {"description": _SAID[status], "content": {MEDIA_TYPE: {"schema": schema}}}
