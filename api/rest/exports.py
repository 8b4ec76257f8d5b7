"""Routes of exports: asked for, looked at, downloaded."""

import base64
import os
from pathlib import Path as Folder
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ValidationError
from starlette.responses import FileResponse
from starlette.types import Message, Receive, Scope, Send

from api.choice import exportable
from api.forms import Form, check_form
from api.rest import render
from api.rest.auth import MayRun, require
from api.rest.bodies import Body, Sent, Unreadable, content
from api.rest.confine import is_under
from api.rest.documented import body_of, refusals
from api.rest.pages import Cursor, Limit, after, page
from api.rest.parts import Parts, Service
from api.rest.problems import problem_response
from api.rest.studies import Idempotency, Named
from api.rest.submit import idempotent
from api.rest.views import Export, ExportRequest, Page
from db.records import Job
from merging.errors import Conflict, NotFound

router = APIRouter(prefix="/v1", tags=["exports"])
_REMEDY = 'send {} or any of {"trial": NUMBER}, {"as": FORM} and {"settings": {NAME: NUMBER}}'
ExportId = Annotated[int, Path(alias="export", ge=1, le=2**31 - 1, description="the export's id")]


@router.post(
    "/studies/{name}/exports",
    status_code=202,
    operation_id="create_export",
    summary="Export a trial",
    responses=refusals(404, 409, 413, 415),
    openapi_extra=body_of(ExportRequest, required=False),
)
def create_export(
    study: Named, service: Service, key: MayRun, body: Sent, response: Response, idempotency_key: Idempotency = None
) -> Export:
    """Write a trial's merge as a checkpoint that transformers loads; without a trial, the verdict's winner.

    `as` asks for what it changes of the base instead: a LoRA, or a delta compressed by a codec with its `settings`.
    `Location` names the export, which has the files once it is done.
    """
    asked = _asked(body)
    idempotency = idempotent(key, idempotency_key, f"export {study.name}", _meant(asked))
    job = idempotency and service.store.jobs.earlier(idempotency)
    if not job:
        chosen = exportable(service.store, study, asked.trial).number
        wanted = {"study": study.name, "trial": chosen, "as": asked.form, "settings": asked.settings}
        job = service.store.jobs.add("export", wanted, study_id=study.id, idempotency=idempotency)
    response.headers["Location"] = f"/v1/exports/{job.id}"
    return render.export(job)


@router.get(
    "/studies/{name}/exports", operation_id="list_exports", summary="List a study's exports", responses=refusals(404)
)
def list_exports(study: Named, service: Service, cursor: Cursor = None, limit: Limit = 50) -> Page[Export]:
    """A study's exports, oldest first."""
    rows = service.store.jobs.of_study(study.id, "export", after(cursor, "exports"), limit + 1)
    return page(rows, limit, "exports", lambda job: job.id, render.export)


@router.get(
    "/exports/{export}",
    operation_id="get_export",
    summary="Get an export",
    dependencies=[Depends(require("read"))],
    responses=refusals(404),
)
def get_export(export: ExportId, service: Service) -> Export:
    """An export: its files once it is done, the problem if it failed."""
    return render.export(service.store.jobs.get(export, "export"))


_FILE: dict[str, Any] = {
    "dependencies": [Depends(require("read"))],
    "response_class": FileResponse,
}


@router.head("/exports/{export}/files/{file:path}", include_in_schema=False, **_FILE)
@router.get(
    "/exports/{export}/files/{file:path}",
    operation_id="download_export_file",
    summary="Download a file of an export",
    responses={
        200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
        206: {"description": "The range that was asked for"},
        **refusals(404, 409, 416),
    },
    **_FILE,
)
def download_export_file(
    export: ExportId,
    file: Annotated[str, Path(description="one of the export's file names")],
    service: Service,
    request: Request,
) -> Response:
    """The file's bytes, or the ranges of it that are asked for. `Repr-Digest` has the whole file's SHA-256."""
    job = service.store.jobs.get(export, "export")
    if job.state != "done":
        raise Conflict(f"export {export} is {job.state}; its files can be downloaded once it is done")
    place, digest = _file(service, job, file)
    headers = {
        "ETag": f'"{digest}"',
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(digest)).decode()}:",
        "Cache-Control": "private, no-cache",
    }
    known = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    if headers["ETag"] in known or "*" in known:
        return Response(status_code=304, headers=headers)
    return _Download(place, headers=headers, media_type="application/octet-stream", filename=file)


class _Download(FileResponse):
    """A file, whose range is refused in the house's form."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused: Message | None = None

        async def watched(message: Message) -> None:
            nonlocal refused
            if message["type"] == "http.response.start" and message["status"] in (400, 416):
                refused = message
            if refused is None:
                await send(message)

        await super().__call__(scope, receive, watched)
        if refused is not None:
            size = os.stat(self.path).st_size
            detail = f"the file has {size} bytes, and Range asks for others; write e.g. `bytes=0-{size - 1}`"
            headers = {"Content-Range": f"bytes */{size}"}
            await problem_response(416, "wrong-range", detail, headers=headers)(scope, receive, send)


def _asked(body: Body) -> ExportRequest:
    """What to export; an empty body asks for the winner.

    Raises:
        Unreadable: the body asks for something else.
        InvalidStudy: there is no such form or setting.
    """
    asked = content(body) if body.content.strip() else {}
    try:
        found = ExportRequest.model_validate(asked)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "body"
        raise Unreadable(key, first["input"], f"is not valid ({first['msg']})", _REMEDY) from None
    check_form(Form(found.form, found.settings), "as", "settings")
    return found


def _meant(asked: ExportRequest) -> dict[str, Any]:
    """What tells one request from another; what asks for no form is what it was before there were any."""
    return {"trial": asked.trial} | asked.model_dump(by_alias=True, exclude={"trial"}, exclude_defaults=True)


def _file(service: Parts, job: Job, name: str) -> tuple[Folder, str]:
    """Where the file lies, and its SHA-256. Only what the export lists is served, and only from its folder.

    Raises:
        NotFound: the export has no such file, or it is gone.
    """
    result = job.result or {}
    listed = next((f for f in result.get("files", []) if f["name"] == name), None)
    if listed is None:
        raise NotFound(f"export {job.id} has no such file; `GET /v1/exports/{job.id}` lists its files")
    folder = os.path.realpath(result["folder"])
    place = os.path.realpath(os.path.join(folder, name))
    exports = os.path.realpath(service.settings.exports)
    if not (is_under(folder, [exports]) and is_under(place, [folder]) and os.path.isfile(place)):
        raise NotFound(f"the files of export {job.id} are gone from the server; export the trial again")
    return Folder(place), str(listed["sha256"])
