"""Evaluations asked for, asked for once more, and called off: steps for use inside a caller's transaction."""

import time
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.leases import FREE
from db.models import EvaluationRow
from evaluation.result import Part
from merging.recipe import Recipe

NO_PROGRESS: dict[str, Any] = {"documents_done": None, "documents_total": None, "tokens_per_second": None}


def find(session: Session, study_id: int, digest: str, part: Part) -> EvaluationRow | None:
    """The row for the recipe of that digest and that part, or None."""
    return session.scalar(
        select(EvaluationRow).where(
            EvaluationRow.study_id == study_id, EvaluationRow.recipe_digest == digest, EvaluationRow.part == part
        )
    )


def find_or_add(session: Session, study_id: int, recipe: Recipe, digest: str, part: Part) -> tuple[EvaluationRow, bool]:
    """The row for that recipe and part, added if there is none; for use inside a caller's transaction."""
    row = find(session, study_id, digest, part)
    if row is not None:
        return row, False
    row = EvaluationRow(
        study_id=study_id,
        recipe_digest=digest,
        part=part,
        recipe=recipe.model_dump(mode="json", by_alias=True),
        state="queued",
        attempts=0,
        created_at=time.time(),
    )
    session.add(row)
    return row, True


def retry_failed(session: Session, study_id: int, part: Part) -> None:
    """Queue again, with fresh attempts, what failed on that part; for use inside a caller's transaction."""
    which = (EvaluationRow.study_id == study_id, EvaluationRow.part == part, EvaluationRow.outcome == "failed")
    again = update(EvaluationRow).where(*which).values(state="queued", outcome=None, attempts=0, finished_at=None)
    session.execute(again, execution_options={"synchronize_session": False})


def cancel_all(session: Session, study_id: int, why: str) -> None:
    """End every evaluation of a study that is not done; for use inside a caller's transaction."""
    ended = {"state": "done", "outcome": "failed", "why": why, "finished_at": time.time()}
    session.execute(
        update(EvaluationRow)
        .where(EvaluationRow.study_id == study_id, EvaluationRow.state != "done")
        .values(**ended, **FREE, **NO_PROGRESS)
        .execution_options(synchronize_session=False)
    )
