"""Trials: added with the evaluation they need, told once, replayed in the order they were told."""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session

from db.evaluations import find_or_add
from db.models import EvaluationRow, TrialRow
from db.records import Trial
from db.session import reader
from merging.recipe import Recipe


@dataclass(frozen=True)
class NewTrial:
    """A trial to be added.

    Attributes:
        recipe, digest: what is to be scored; None where the parameters make no recipe, and then `why` says so.
    """

    number: int
    origin: str
    params: dict[str, Any] | None
    recipe: Recipe | None
    digest: str | None
    why: str | None = None


class Trials:
    """The trials of one database."""

    def __init__(self, engine: Engine) -> None:
        self._reader, self._writer = reader(engine), engine

    def add(self, study_id: int, new: NewTrial) -> Trial:
        """Add a trial, and with it (in the same transaction) the evaluation its recipe needs, if it is new."""
        with Session(self._writer) as session, session.begin():
            evaluation_id = None
            if new.recipe is not None and new.digest is not None:
                evaluation, _ = find_or_add(session, study_id, new.recipe, new.digest, "search")
                session.flush()
                evaluation_id = evaluation.id
            row = TrialRow(
                study_id=study_id,
                number=new.number,
                origin=new.origin,
                params=new.params,
                evaluation_id=evaluation_id,
                state="open",
                why=new.why,
                created_at=time.time(),
            )
            session.add(row)
            session.flush()
            return _trial(row)

    def all(self, study_id: int) -> tuple[Trial, ...]:
        """Every trial of the study, by number."""
        query = select(TrialRow).where(TrialRow.study_id == study_id).order_by(TrialRow.number)
        with Session(self._reader) as session:
            return tuple(_trial(row) for row in session.scalars(query))

    def ready(self, study_id: int) -> tuple[Trial, ...]:
        """Open trials whose evaluation is done, or that need none: they can be told. By number."""
        query = (
            select(TrialRow)
            .outerjoin(EvaluationRow, TrialRow.evaluation_id == EvaluationRow.id)
            .where(TrialRow.study_id == study_id, TrialRow.state == "open")
            .where((TrialRow.evaluation_id.is_(None)) | (EvaluationRow.state == "done"))
            .order_by(TrialRow.number)
        )
        with Session(self._reader) as session:
            return tuple(_trial(row) for row in session.scalars(query))

    def tell(self, study_id: int, number: int, state: str, value: float | None, why: str | None = None) -> Trial:
        """Close an open trial. Telling it again changes nothing: the first word stands."""
        order = (
            select(func.coalesce(func.max(TrialRow.told_order), 0) + 1)
            .where(TrialRow.study_id == study_id)
            .scalar_subquery()
        )
        this = (TrialRow.study_id == study_id, TrialRow.number == number)
        close = (
            update(TrialRow)
            .where(*this, TrialRow.state == "open")
            .values(
                state=state,
                value=value,
                why=func.coalesce(why, TrialRow.why),
                told_order=order,
                told_at=time.time(),
            )
        )
        with Session(self._writer) as session, session.begin():
            session.execute(close, execution_options={"synchronize_session": False})
            return _trial(session.scalars(select(TrialRow).where(*this)).one())


def _trial(row: TrialRow) -> Trial:
    return Trial(
        number=row.number,
        origin=row.origin,
        params=row.params,
        evaluation_id=row.evaluation_id,
        state=row.state,
        value=row.value,
        why=row.why,
        told_order=row.told_order,
        created_at=row.created_at,
        told_at=row.told_at,
    )
