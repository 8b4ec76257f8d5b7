"""Records of the store as the API shows them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from math import isfinite
from typing import Any, cast, get_args
from urllib.parse import quote

from api.forms import form_of
from api.howfar import how_far
from api.rest.problems import Problem, failure, problem_content
from api.rest.views import (
    BestTrial,
    EvaluationProgress,
    Export,
    ExportedFile,
    JobState,
    MergeMethod,
    MethodParameter,
    RunningEvaluation,
    StudyDetail,
    StudyState,
    StudySummary,
    Submission,
    TaskResult,
    TrialCounts,
    TrialDetail,
    TrialState,
    TrialStep,
    TrialSummary,
    Worker,
)
from db.records import DEFAULT_POOL, Job, Process, Progress, Study, Trial
from db.store import Store
from evaluation.result import Scored
from merging.catalog import Method, Parameter


def study_summary(store: Store, study: Study) -> StudySummary:
    """A study in short."""
    best = store.trials.best(study.id)
    return StudySummary(
        name=study.name,
        state=cast(StudyState, study.state),
        why=study.why,
        phase=study.phase,
        trials=TrialCounts(**store.studies.counts(study.id)),
        trials_asked=(how := how_far(store, study)).asked,
        used_up=how.share,
        ended=study.ended,
        best=BestTrial(number=best.number, value=best.value or 0.0, origin=best.origin) if best else None,
        created_at=when(study.created_at),
        finished_at=_maybe(study.finished_at),
    )


def study_detail(store: Store, study: Study) -> StudyDetail:
    """A study, with what is being done for it now."""
    pool = study.spec["search"].get("pool", DEFAULT_POOL)
    workers = [worker(process) for process in store.processes.alive("worker")]
    return StudyDetail(
        **dict(study_summary(store, study)),
        spec=study.spec,
        workers=[w for w in workers if pool in w.pools],
        running=running(store, study.id),
        compressed=study.setup.get("compressed"),
        plan=study.setup.get("plan"),
    )


def running(store: Store, study_id: int) -> list[RunningEvaluation]:
    """What is being scored for a study now."""
    found = store.evaluations.running(study_id)
    if not found:
        return []
    numbers = {t.evaluation_id: t.number for t in store.trials.page(study_id, None, 10_000, "open")}
    return [
        RunningEvaluation(
            evaluation=e.id,
            trial=numbers.get(e.id),
            part=e.part,
            rung=e.rung,
            worker=e.owner,
            attempt=e.attempts,
            progress=_progress(e.progress),
        )
        for e in found
    ]


def worker(process: Process) -> Worker:
    """A worker, as it last said of itself."""
    said = process.detail
    return Worker(
        name=process.name,
        host=process.host,
        pid=process.pid,
        pools=list(said.get("pools") or []),
        device=said.get("device"),
        device_name=said.get("device_name"),
        evaluation=said.get("evaluation"),
        memory_used=said.get("memory_used"),
        memory_total=said.get("memory_total"),
        stopping=bool(said.get("stopping")),
        started_at=when(process.started_at),
        seen_at=when(process.seen_at),
    )


def trial_summary(trial: Trial) -> TrialSummary:
    """A trial in short."""
    return TrialSummary(
        number=trial.number,
        origin=trial.origin,
        state=cast(TrialState, trial.state),
        value=trial.value,
        why=trial.why,
        rung=trial.rung,
        steps=[TrialStep(rung=s.rung, documents=s.documents, value=s.value) for s in trial.steps],
        estimate=trial.estimate,
        constraints=None if trial.constraints is None else list(trial.constraints),
        params=trial.params,
        created_at=when(trial.created_at),
        told_at=_maybe(trial.told_at),
    )


def trial_detail(store: Store, trial: Trial) -> TrialDetail:
    """A trial, with its recipe and what scoring it gave and took."""
    evaluation = None if trial.evaluation_id is None else store.evaluations.get(trial.evaluation_id)
    scored = evaluation.outcome if evaluation and isinstance(evaluation.outcome, Scored) else None
    return TrialDetail(
        **dict(trial_summary(trial)),
        recipe=evaluation and evaluation.recipe.model_dump(mode="json", by_alias=True),
        recipe_digest=evaluation and evaluation.recipe_digest,
        scores=scored and _scores(scored),
        documents_reused=scored and scored.reused,
        tokens=scored and scored.tokens,
        build_seconds=scored and scored.build_seconds,
        score_seconds=scored and scored.score_seconds,
        device=scored and scored.device,
        attempts=evaluation and evaluation.attempts,
        worker=evaluation and evaluation.owner,
        progress=_progress(evaluation.progress) if evaluation else None,
    )


def export(job: Job) -> Export:
    """An export, with its files once it is done."""
    listed: Sequence[Mapping[str, Any]] = (job.result or {}).get("files", [])
    files = [
        ExportedFile(
            name=file["name"],
            bytes=file["bytes"],
            sha256=file["sha256"],
            url=f"/v1/exports/{job.id}/files/{quote(file['name'])}",
        )
        for file in listed
    ]
    form = form_of(job.content)
    return Export(
        study=job.content["study"],
        trial=job.content["trial"],
        form=form.name,
        settings=dict(form.settings),
        files=files,
        **_job(job),
    )


def submission(job: Job) -> Submission:
    """A submission, and what came of it."""
    return Submission(study=(job.result or {}).get("study"), **_job(job))


def problem_of(job: Job) -> dict[str, Any] | None:
    """The problem of a job that failed, complete however little it says."""
    if job.state != "failed":
        return None
    said = dict(job.problem or {})
    status = said.pop("status", 500)
    detail = said.pop("detail", failure()["detail"])
    return problem_content(status, "internal" if status == 500 else None, detail) | said


def method(row: Method) -> MergeMethod:
    """A merge method."""
    return MergeMethod(
        name=row.name,
        aliases=list(row.aliases),
        summary=row.summary,
        formula=row.formula,
        reading=row.reading,
        paper=row.paper,
        cost=row.cost,
        needs=list(row.needs),
        artefacts=list(row.artefacts),
        fewest_experts=row.experts[0],
        most_experts=row.experts[1],
        needs_base=row.needs_base,
        weighting=row.weighting,
        recommended=row.recommended,
        weight=_parameter(row.weight) if row.weight else None,
        parameters=[_parameter(p) for p in row.parameters],
    )


def when(seconds: float) -> datetime:
    """Seconds since 1970 as a time in UTC."""
    return datetime.fromtimestamp(seconds, UTC)


def _maybe(seconds: float | None) -> datetime | None:
    return None if seconds is None else when(seconds)


def _job(job: Job) -> dict[str, Any]:
    assert job.state in get_args(JobState), job.state
    problem = problem_of(job)
    return {
        "id": job.id,
        "state": job.state,
        "problem": problem and Problem(**problem),
        "created_at": when(job.created_at),
        "finished_at": _maybe(job.finished_at),
    }


def _scores(scored: Scored) -> dict[str, TaskResult]:
    return {
        s.task: TaskResult(metric=s.metric, value=s.value, stderr=s.stderr, documents=len(s.documents))
        for s in scored.scores
    }


def _progress(progress: Progress | None) -> EvaluationProgress | None:
    if progress is None:
        return None
    return EvaluationProgress(
        documents_done=progress.documents_done,
        documents_total=progress.documents_total,
        tokens_per_second=progress.tokens_per_second,
        artefacts_done=progress.artefacts_done,
        artefacts_total=progress.artefacts_total,
    )


def _parameter(row: Parameter) -> MethodParameter:
    return MethodParameter(
        name=row.name,
        doc=row.doc,
        kind=row.kind,
        default=row.default,
        neutral=row.neutral,
        low=row.low,
        high=row.high,
        minimum=row.minimum if isfinite(row.minimum) else None,
        maximum=row.maximum if isfinite(row.maximum) else None,
        log=row.log,
        choices=list(row.choices),
        scope=row.scope,
        stage=row.stage,
        searched=row.searched,
        per_expert=row.per_expert,
    )
