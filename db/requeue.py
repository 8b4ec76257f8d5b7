"""Evaluations asked for, asked for once more, and called off: steps for use inside a caller's transaction."""

import time
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.leases import FREE
from db.models import EvaluationRow, TrialRow
from db.outcomes import as_part
from evaluation.result import Part
from merging.recipe import Recipe

_PROGRESS = ("documents_done", "documents_total", "tokens_per_second", "artefacts_done", "artefacts_total")
NO_PROGRESS: dict[str, Any] = dict.fromkeys(_PROGRESS)


def find(session: Session, study_id: int, digest: str, part: Part, rung: int) -> EvaluationRow | None:
    """The row for the recipe of that digest on that rung of that part, or None."""
    this = {"study_id": study_id, "recipe_digest": digest, "part": part, "rung": rung}
    return session.scalar(select(EvaluationRow).filter_by(**this))


def find_or_add(
    session: Session, study_id: int, recipe: Recipe, digest: str, part: Part, rung: int
) -> tuple[EvaluationRow, bool]:
    """The row for that recipe, part and rung, added if there is none; for use inside a caller's transaction."""
    content = recipe.model_dump(mode="json", by_alias=True)
    return _find_or_add(session, study_id, content, digest, part, rung)


def find_or_add_next(session: Session, earlier: EvaluationRow, rung: int) -> EvaluationRow:
    """The row for the same recipe on another rung, added if there is none; for use inside a caller's transaction."""
    row, _ = _find_or_add(session, earlier.study_id, earlier.recipe, earlier.recipe_digest, as_part(earlier.part), rung)
    return row


def _find_or_add(
    session: Session, study_id: int, recipe: dict[str, Any], digest: str, part: Part, rung: int
) -> tuple[EvaluationRow, bool]:
    row = find(session, study_id, digest, part, rung)
    if row is not None:
        return row, False
    row = EvaluationRow(
        study_id=study_id,
        recipe_digest=digest,
        part=part,
        rung=rung,
        recipe=recipe,
        state="queued",
        attempts=0,
        created_at=time.time(),
    )
    session.add(row)
    return row, True


def retry_failed(session: Session, study_id: int, part: Part | None = None) -> None:
    """Queue again, with fresh attempts, what failed on that part, or on any; for use inside a caller's transaction.

    What a trial was told of stays: it would be scored for nothing.
    """
    told = select(TrialRow.evaluation_id).where(
        TrialRow.study_id == study_id, TrialRow.evaluation_id.is_not(None), TrialRow.told_order.is_not(None)
    )
    which = [EvaluationRow.study_id == study_id, EvaluationRow.outcome == "failed", EvaluationRow.id.not_in(told)]
    if part is not None:
        which.append(EvaluationRow.part == part)
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
