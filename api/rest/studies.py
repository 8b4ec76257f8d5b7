"""Routes of studies: submitted, listed, looked at, paused, resumed, cancelled; their trials and verdict."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Path, Query, Response
from pydantic import Field
from starlette.concurrency import run_in_threadpool

from api.fronts import FrontEntry, front_entries
from api.rest import render
from api.rest.auth import MayRead, MayRun, require
from api.rest.bodies import Sent
from api.rest.documented import body_of, refusals
from api.rest.pages import Cursor, Limit, after, page
from api.rest.parts import Service
from api.rest.problems import respond
from api.rest.submit import begin_submission, settled
from api.rest.views import Page, StudyDetail, StudySummary, Submission, TrialDetail, TrialState, TrialSummary
from db.records import Study
from merging.errors import NotFound
from search.study import StudySpec
from search.verdict import Verdict


class BestOfStudy(TrialDetail):
    """A study's best trial, and of several objectives the front that it is the knee of."""

    front: list[FrontEntry] | None = Field(
        description="null: the objective is one number; empty: none meets its constraints"
    )


router = APIRouter(prefix="/v1", tags=["studies"])
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LARGEST = 2**31 - 1  # of the numbers that the database's columns take
Number = Annotated[int, Path(ge=0, le=_LARGEST, description="the trial's number")]
Idempotency = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="names the request: sent again, it is not done again"),
]


def study_named(name: Annotated[str, Path(description="the study's name")], service: Service, key: MayRead) -> Study:
    """The study that a path names.

    Raises:
        NotFound: there is none.
    """
    if not _NAME.fullmatch(name):
        raise NotFound("no study has such a name; `GET /v1/studies` lists them")
    return service.store.studies.get(name)


Named = Annotated[Study, Depends(study_named)]


@router.post(
    "/studies",
    status_code=201,
    operation_id="submit_study",
    summary="Submit a study",
    responses={202: {"model": Submission, "description": "Still being checked"}, **refusals(409, 413, 415)},
    openapi_extra=body_of(StudySpec, required=True),
    response_model=StudyDetail,
)
async def submit_study(
    service: Service, key: MayRun, body: Sent, response: Response, idempotency_key: Idempotency = None
) -> Response | StudyDetail:
    """The study file as JSON, or as YAML (`Content-Type: application/yaml`). It is checked in full, models and
    tasks too, before anything is created.

    Where that takes long, the answer is 202 and `Location` names the submission, which says what became of it.
    """
    job = await run_in_threadpool(begin_submission, service, key, body, idempotency_key)
    job = await settled(service, job)
    problem = render.problem_of(job)
    if problem is not None:
        return respond(problem)
    if job.result is None:
        where = {"Location": f"/v1/submissions/{job.id}", "Retry-After": "5"}
        return Response(render.submission(job).model_dump_json(), 202, where, "application/json")
    name = job.result["study"]
    response.headers["Location"] = f"/v1/studies/{name}"
    return await run_in_threadpool(lambda: render.study_detail(service.store, service.store.studies.get(name)))


@router.get(
    "/submissions/{submission}",
    operation_id="get_submission",
    summary="What became of a submission",
    dependencies=[Depends(require("read"))],
    responses=refusals(404),
)
def get_submission(submission: Annotated[int, Path(ge=1, le=_LARGEST)], service: Service) -> Submission:
    """A submission that was answered with 202: its study once that is created, or the problem."""
    return render.submission(service.store.jobs.get(submission, "check"))


@router.get(
    "/studies",
    operation_id="list_studies",
    summary="List studies",
    dependencies=[Depends(require("read"))],
    responses=refusals(),
)
def list_studies(service: Service, cursor: Cursor = None, limit: Limit = 50) -> Page[StudySummary]:
    """All studies, oldest first."""
    rows = service.store.studies.page(after(cursor, "studies"), limit + 1)
    return page(rows, limit, "studies", lambda s: s.id, lambda s: render.study_summary(service.store, s))


@router.get("/studies/{name}", operation_id="get_study", summary="Get a study", responses=refusals(404))
def get_study(study: Named, service: Service) -> StudyDetail:
    """A study: how far it is, and what is being done for it now."""
    return render.study_detail(service.store, study)


@router.post(
    "/studies/{name}/pause",
    operation_id="pause_study",
    summary="Pause a study",
    dependencies=[Depends(require("run"))],
    responses=refusals(404, 409),
)
def pause_study(study: Named, service: Service) -> StudyDetail:
    """Let it begin nothing more. What is being scored is scored to its end. Doing it twice does no harm."""
    return render.study_detail(service.store, service.store.studies.pause(study.name))


@router.post(
    "/studies/{name}/resume",
    operation_id="resume_study",
    summary="Resume a study",
    dependencies=[Depends(require("run"))],
    responses=refusals(404, 409),
)
def resume_study(study: Named, service: Service) -> StudyDetail:
    """Let it go on after a pause, or after a failure whose cause is mended. Doing it twice does no harm."""
    return render.study_detail(service.store, service.store.studies.resume(study.name))


@router.post(
    "/studies/{name}/cancel",
    operation_id="cancel_study",
    summary="Cancel a study",
    dependencies=[Depends(require("run"))],
    responses=refusals(404, 409),
)
def cancel_study(study: Named, service: Service) -> StudyDetail:
    """End it now, for good. What was scored stays. Doing it twice does no harm."""
    return render.study_detail(service.store, service.store.studies.cancel(study.name))


@router.get(
    "/studies/{name}/trials",
    tags=["trials"],
    operation_id="list_trials",
    summary="List a study's trials",
    responses=refusals(404),
)
def list_trials(
    study: Named,
    service: Service,
    state: Annotated[TrialState | None, Query(description="only trials in this state")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[TrialSummary]:
    """A study's trials by number."""
    rows = service.store.trials.page(study.id, after(cursor, "trials"), limit + 1, state)
    return page(rows, limit, "trials", lambda t: t.number, render.trial_summary)


@router.get(
    "/studies/{name}/trials/{number}",
    tags=["trials"],
    operation_id="get_trial",
    summary="Get a trial",
    responses=refusals(404),
)
def get_trial(study: Named, number: Number, service: Service) -> TrialDetail:
    """A trial with its recipe and scores; while it is open, how far its scoring is."""
    found = service.store.trials.get(study.id, number)
    if found is None:
        count = sum(service.store.studies.counts(study.id).values())
        raise NotFound(f"study {study.name!r} has no trial {number}; it has {count}, counted from 0")
    return render.trial_detail(service.store, found)


@router.get(
    "/studies/{name}/best",
    tags=["trials"],
    operation_id="get_best_trial",
    summary="Get a study's best trial",
    responses=refusals(404),
)
def get_best_trial(study: Named, service: Service) -> BestOfStudy:
    """The complete trial with the highest value on the search documents; the verdict judges it on others. Of the
    objective `pareto` the trial that is recommended of the front, and the front with its recipes.
    """
    front = front_entries(service.store, study)
    trials = service.store.trials
    found = trials.get(study.id, front[0].trial) if front else trials.best(study.id)
    if found is None:
        raise NotFound(f"study {study.name!r} is {study.state} and has no complete trial yet")
    return BestOfStudy(**dict(render.trial_detail(service.store, found)), front=front)


@router.get(
    "/studies/{name}/verdict",
    operation_id="get_verdict",
    summary="Get a study's verdict",
    responses=refusals(404),
)
def get_verdict(study: Named) -> Verdict:
    """The winner and the baselines on documents that the search never saw."""
    if study.verdict is None:
        why = f" ({study.why})" if study.why else ""
        raise NotFound(f"study {study.name!r} is {study.state}{why} and has no verdict; only a finished one has")
    return Verdict.model_validate(study.verdict)
