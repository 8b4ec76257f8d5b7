"""Evaluations between rows and records: what was scored, written and read back exactly."""

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import items
from db.documents import documents_of
from db.models import EvaluationRow, ScoreRow
from db.records import Evaluation, Progress
from evaluation.result import Failed, Infeasible, Part, Scored, TaskScore
from merging.recipe import parse_recipe


def columns(outcome: Scored | Infeasible | Failed) -> dict[str, Any]:
    """The columns of an evaluation that ended so; the scores of the tasks are rows of their own."""
    if not isinstance(outcome, Scored):
        return {"outcome": outcome.kind, "why": storable(outcome.why)}
    return {
        "outcome": outcome.kind,
        "why": None,
        "documents_reused": outcome.reused,
        "tokens": outcome.tokens,
        "build_seconds": outcome.build_seconds,
        "score_seconds": outcome.score_seconds,
        "device": outcome.device,
    }


def storable(text: str) -> str:
    """A message as every database takes it: PostgreSQL refuses NUL, and nobody takes what is no Unicode."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()


def score_row(evaluation_id: int, score: TaskScore) -> ScoreRow:
    """One task's score as a row."""
    return ScoreRow(
        evaluation_id=evaluation_id,
        task=score.task,
        metric=score.metric,
        value=score.value,
        stderr=score.stderr,
        higher_is_better=score.higher_is_better,
        items=items.encode(score.items),
    )


def as_part(part: str) -> Part:
    """The column's word as the type."""
    return "holdout" if part == "holdout" else "search"


def read_evaluation(session: Session, row: EvaluationRow) -> Evaluation:
    """The row as a record, with its outcome once it is done."""
    progress = None
    if row.state == "leased" and row.documents_total is not None:
        documents = row.documents_done or 0, row.documents_total
        progress = Progress(*documents, row.tokens_per_second, row.artefacts_done, row.artefacts_total)
    return Evaluation(
        id=row.id,
        study_id=row.study_id,
        recipe=parse_recipe(row.recipe),
        recipe_digest=row.recipe_digest,
        part=as_part(row.part),
        state=row.state,
        attempts=row.attempts,
        owner=row.owner,
        why=row.why,
        progress=progress,
        outcome=_outcome(session, row) if row.state == "done" else None,
        rung=row.rung,
    )


def _outcome(session: Session, row: EvaluationRow) -> Scored | Infeasible | Failed:
    if row.outcome == "infeasible":
        return Infeasible(why=row.why or "")
    if row.outcome == "failed":
        return Failed(why=row.why or "")
    documents = documents_of(session, row.study_id, as_part(row.part))
    rows = session.scalars(select(ScoreRow).where(ScoreRow.evaluation_id == row.id).order_by(ScoreRow.task))
    scores = tuple(
        TaskScore(
            task=score.task,
            metric=score.metric,
            value=score.value,
            stderr=score.stderr,
            higher_is_better=score.higher_is_better,
            documents=documents[score.task].at(row.rung),
            items=items.decode(score.items),
        )
        for score in rows
    )
    return Scored(
        scores=scores,
        tokens=row.tokens or 0,
        build_seconds=row.build_seconds or 0.0,
        score_seconds=row.score_seconds or 0.0,
        device=row.device or "",
        reused=row.documents_reused or 0,
    )


def read_seconds(session: Session, evaluation_id: int, rung: int) -> float | None:
    """Seconds that all that was computed for that evaluation's recipe took, up to a rung of its part; None: nothing."""
    this = select(EvaluationRow.study_id, EvaluationRow.recipe_digest, EvaluationRow.part)
    study_id, digest, part = session.execute(this.where(EvaluationRow.id == evaluation_id)).one()
    query = select(func.sum(EvaluationRow.build_seconds + EvaluationRow.score_seconds)).where(
        EvaluationRow.study_id == study_id,
        EvaluationRow.recipe_digest == digest,
        EvaluationRow.part == part,
        EvaluationRow.rung <= rung,
        EvaluationRow.tokens > 0,  # else all of it was known before, and nothing was built
    )
    return session.scalar(query)
