"""Trials: added with the evaluation they need, taken from rung to rung, told once, replayed in the order told."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, func, select, update
from sqlalchemy.orm import Session, aliased

from db.documents import REHEARSAL
from db.events import append_event
from db.leads import leading
from db.models import DocumentSetRow, EvaluationRow, TrialRow
from db.records import Lead, Step, Trial
from db.requeue import find_or_add, find_or_add_next
from db.session import reader
from merging.recipe import Recipe


@dataclass(frozen=True)
class NewTrial:
    """A trial to be added.

    Attributes:
        recipe, digest: what is to be scored; None where the parameters make no recipe, and then `why` says so.
        rung: where it begins.
    """

    number: int
    origin: str
    params: dict[str, Any] | None
    recipe: Recipe | None
    digest: str | None
    why: str | None = None
    rung: int = 0


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
                evaluation, _ = find_or_add(session, study_id, new.recipe, new.digest, "search", new.rung)
                session.flush()
                evaluation_id = evaluation.id
            row = TrialRow(
                study_id=study_id,
                number=new.number,
                origin=new.origin,
                params=new.params,
                evaluation_id=evaluation_id,
                rung=new.rung,
                steps=[],
                state="open",
                why=new.why,
                violation=0.0,
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
        """The best complete trial, as `leading` orders them; None if there is none."""
        return next(iter(self.leading(study_id, 1)), None)

    def leading(self, study_id: int, limit: int) -> tuple[Trial, ...]:
        """The best complete trials, best first, at most so many.

        One that meets all constraints is better than one that does not, and less beyond them than more; then the
        higher value is better, and of equals the first.
        """
        query = (
            select(TrialRow)
            .where(TrialRow.study_id == study_id, TrialRow.state == "complete")
            .order_by(TrialRow.violation, TrialRow.value.desc(), TrialRow.number)
            .limit(limit)
        )
        with Session(self._reader) as session:
            return tuple(_trial(row) for row in session.scalars(query))

    def scored_over(self, digests: Sequence[str]) -> tuple[tuple[int, int, str], ...]:
        """Complete trials of all studies whose search documents have all of these digests, the newest first.

        None that a formula scored.

        Returns:
            Of each the evaluation, the study, and its recipe's digest.
        """
        of_study = (DocumentSetRow.study_id == TrialRow.study_id) & (DocumentSetRow.part == "search")
        columns = EvaluationRow.id, TrialRow.study_id, EvaluationRow.recipe_digest
        query = (
            select(*columns)
            .join(TrialRow, TrialRow.evaluation_id == EvaluationRow.id)
            .join(DocumentSetRow, of_study)
            .where(TrialRow.state == "complete", EvaluationRow.device != REHEARSAL)
            .where(DocumentSetRow.digest.in_(digests))
            .group_by(*columns)
            .having(func.count(DocumentSetRow.digest.distinct()) == len(digests))
            .order_by(EvaluationRow.id.desc())
        )
        with Session(self._reader) as session:
            rows = session.execute(query).all() if digests else ()
            return tuple((evaluation, study, recipe) for evaluation, study, recipe in rows)

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

    def promote(self, lead: Lead, number: int, rung: int, step: Step) -> Trial:
        """Let an open trial go on to that rung, where its recipe is evaluated next; all in one transaction.

        A trial that is told, or has come so far, is left as it is.

        Args:
            step: what it was worth on the rung that it leaves.

        Raises:
            LeadLost: somebody else leads the study, or it is over.
        """
        with leading(self._writer, lead) as session:
            row = _the_trial(session, lead, number)
            if row.state != "open" or row.rung >= rung:
                return _trial(row)
            evaluation = find_or_add_next(session, session.get_one(EvaluationRow, row.evaluation_id), rung)
            session.flush()
            row.evaluation_id, row.rung, row.steps = evaluation.id, rung, _with_step(row.steps, step)
            data = {"number": number, "origin": row.origin, "rung": rung, "value": step.value}
            append_event(session, lead.study_id, "trial.promoted", data)
            return _trial(row)

    def tell(
        self,
        lead: Lead,
        number: int,
        state: str,
        value: float | None,
        why: str | None = None,
        *,
        estimate: float | None = None,
        constraints: Sequence[float] | None = None,
        step: Step | None = None,
    ) -> Trial:
        """Close an open trial. Telling it again changes nothing: the first word stands.

        Args:
            state: `complete`, `pruned`, `infeasible` or `failed`.
            value: of a complete trial, over all documents of the search.
            estimate: what the strategy is told of a trial that is pruned.
            constraints: how far it is beyond each of the study's constraints.
            step: what it was worth on the rung where it ends.

        Raises:
            LeadLost: somebody else leads the study, or it is over.
        """
        this = (TrialRow.study_id == lead.study_id, TrialRow.number == number)
        other = aliased(TrialRow)
        order = select(func.coalesce(func.max(other.told_order), 0) + 1).where(other.study_id == lead.study_id)
        values = {"state": state, "value": value, "estimate": estimate, **_constraints(constraints)}
        values |= {"told_order": order.scalar_subquery(), "told_at": time.time()} | ({"why": why} if why else {})
        told = update(TrialRow).where(*this, TrialRow.state == "open").values(values)
        with leading(self._writer, lead) as session:
            told = told.returning(TrialRow).execution_options(synchronize_session=False)
            row = session.scalars(told).one_or_none()
            if row is None:
                return _trial(_the_trial(session, lead, number))
            if step is not None:
                row.steps = _with_step(row.steps, step)
            data = {"number": number, "origin": row.origin, "state": state, "value": value, "why": row.why}
            append_event(session, lead.study_id, "trial.told", data)
            return _trial(row)

    def rescore(
        self, lead: Lead, number: int, evaluation_id: int, value: float, constraints: Sequence[float] | None
    ) -> Trial:
        """Make a pruned trial complete, for it was scored in full after all; what the strategy was told stays.

        One that is complete is left as it is.

        Args:
            evaluation_id: the full scoring of its recipe.

        Raises:
            LeadLost: somebody else leads the study, or it is over.
        """
        with leading(self._writer, lead) as session:
            row = _the_trial(session, lead, number)
            if row.state != "pruned":
                return _trial(row)
            row.rung = session.get_one(EvaluationRow, evaluation_id).rung
            row.state, row.value, row.evaluation_id = "complete", value, evaluation_id
            for column, content in _constraints(constraints).items():
                setattr(row, column, content)
            data = {"number": number, "origin": row.origin, "value": value}
            append_event(session, lead.study_id, "trial.rescored", data)
            return _trial(row)


def _the_trial(session: Session, lead: Lead, number: int) -> TrialRow:
    """The row to be changed; who leads holds the study's row, so nobody else changes it meanwhile."""
    return session.scalars(select(TrialRow).where(TrialRow.study_id == lead.study_id, TrialRow.number == number)).one()


def _with_step(steps: list[Any] | None, step: Step) -> list[Any]:
    return [*(steps or ()), [step.rung, step.documents, step.value]]


def _constraints(beyond: Sequence[float] | None) -> dict[str, Any]:
    """The columns that say how far a trial is beyond each constraint, and beyond all."""
    return {
        "constraints": None if beyond is None else list(beyond),
        "violation": sum(max(by, 0.0) for by in beyond or ()),
    }


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
        rung=row.rung,
        steps=tuple(Step(*step) for step in row.steps or ()),
        estimate=row.estimate,
        constraints=None if row.constraints is None else tuple(row.constraints),
    )
