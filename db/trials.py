"""Trials: added with the evaluation they need, told once, replayed in the order they were told."""

import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session, aliased

from db.events import append_event
from db.leads import leading
from db.models import EvaluationRow, TrialRow
from db.records import Lead, Trial
from db.requeue import find_or_add
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

    def add(self, lead: Lead, new: NewTrial) -> Trial:
        """Add a trial, and with it (in the same transaction) the evaluation its recipe needs, if it is new.

        Raises:
            LeadLost: somebody else leads the study, or it does not run.
        """
        study_id = lead.study_id
        with leading(self._writer, lead, states=("running",)) as session:
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
            append_event(session, study_id, "trial.added", {"number": new.number, "origin": new.origin})
            return _trial(row)

    def all(self, study_id: int) -> tuple[Trial, ...]:
        """Every trial of the study, by number."""
        query = select(TrialRow).where(TrialRow.study_id == study_id).order_by(TrialRow.number)
        with Session(self._reader) as session:
            return tuple(_trial(row) for row in session.scalars(query))

    def page(self, study_id: int, after: int | None, limit: int, state: str | None = None) -> tuple[Trial, ...]:
        """The study's trials that follow that number, by number; at most `limit`, if asked only those of one state."""
        query = select(TrialRow).where(TrialRow.study_id == study_id).order_by(TrialRow.number).limit(limit)
        if after is not None:
            query = query.where(TrialRow.number > after)
        if state is not None:
            query = query.where(TrialRow.state == state)
        with Session(self._reader) as session:
            return tuple(_trial(row) for row in session.scalars(query))

    def get(self, study_id: int, number: int) -> Trial | None:
        """The study's trial of that number, or None."""
        with Session(self._reader) as session:
            row = session.scalar(select(TrialRow).where(TrialRow.study_id == study_id, TrialRow.number == number))
            return _trial(row) if row else None

    def best(self, study_id: int) -> Trial | None:
        """The complete trial of the highest value, of equals the first; None if there is none."""
        query = (
            select(TrialRow)
            .where(TrialRow.study_id == study_id, TrialRow.state == "complete")
            .order_by(TrialRow.value.desc(), TrialRow.number)
            .limit(1)
        )
        with Session(self._reader) as session:
            row = session.scalar(query)
            return _trial(row) if row else None

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

    def tell(self, lead: Lead, number: int, state: str, value: float | None, why: str | None = None) -> Trial:
        """Close an open trial. Telling it again changes nothing: the first word stands.

        Raises:
            LeadLost: somebody else leads the study, or it is over.
        """
        this = (TrialRow.study_id == lead.study_id, TrialRow.number == number)
        other = aliased(TrialRow)
        order = select(func.coalesce(func.max(other.told_order), 0) + 1).where(other.study_id == lead.study_id)
        values = {"state": state, "value": value, "told_order": order.scalar_subquery(), "told_at": time.time()}
        told = update(TrialRow).where(*this, TrialRow.state == "open").values(values | ({"why": why} if why else {}))
        with leading(self._writer, lead) as session:
            told = told.returning(TrialRow).execution_options(synchronize_session=False)
            row = session.scalars(told).one_or_none()
            if row is None:
                return _trial(session.scalars(select(TrialRow).where(*this)).one())
            data = {"number": number, "origin": row.origin, "state": state, "value": value, "why": row.why}
            append_event(session, lead.study_id, "trial.told", data)
            return _trial(row)


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
