"""Studies: created once, complete or not at all; found by name; paused, cancelled and brought to an end."""

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Engine, Select, func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.documents import document_rows, document_set
from db.events import append_event, lock_studies
from db.jobs import forget_key, judging
from db.leads import leading
from db.models import DocumentSetRow, EvaluationRow, EventRow, StudyRow, TrialRow
from db.outcomes import as_part, storable
from db.records import ORIGINALS, DocumentSet, Lead, Study
from db.requeue import cancel_all, retry_failed
from db.session import reader
from db.wakeups import CONTROLLER, notify
from evaluation.result import Part
from merging.errors import Conflict, NotFound

HOLDOUT_READ = "holdout.read"  # the kind of event
_NAMED = 20  # studies, in the message about one that does not exist
Documents = Mapping[tuple[str, Part], DocumentSet]


class NameTaken(Conflict):
    """There is a study of that name already."""

    def __init__(self, name: str) -> None:
        super().__init__(f"a study named {name!r} exists already; choose another name")


class Studies:
    """The studies of one database."""

    def __init__(self, engine: Engine) -> None:
        self._reader, self._writer = reader(engine), engine

    def create(
        self, name: str, spec: dict[str, Any], frozen_digest: str, setup: dict[str, Any], documents: Documents
    ) -> Study:
        """A new running study with its document split.

        Raises:
            NameTaken: the name is taken.
        """
        row = StudyRow(
            name=name, spec=spec, frozen_digest=frozen_digest, setup=setup, state="running", created_at=time.time()
        )
        try:
            with Session(self._writer, expire_on_commit=False) as session, session.begin():
                session.add(row)
                session.flush()
                session.add_all(document_rows(row.id, documents))
                append_event(session, row.id, "study.created", {"name": name})
                notify(session, CONTROLLER)
        except IntegrityError as error:
            raise NameTaken(name) from error
        return _study(row)

    def get(self, name: str) -> Study:
        """The study of that name.

        Raises:
            NotFound: there is none; the message lists the newest of those there are.
        """
        found = self.find(name)
        if found is None:
            names = ", ".join(self._newest_names()) or "none"
            raise NotFound(f"no study is named {name!r}; the studies here: {names}")
        return found

    def _newest_names(self) -> list[str]:
        with Session(self._reader) as session:
            names = list(session.scalars(select(StudyRow.name).order_by(StudyRow.id.desc()).limit(_NAMED + 1)))
        return names[:_NAMED] + (["…"] if len(names) > _NAMED else [])

    def find(self, name: str) -> Study | None:
        """The study of that name, or None."""
        with Session(self._reader) as session:
            row = session.scalar(select(StudyRow).where(StudyRow.name == name))
            return _study(row) if row else None

    def by_id(self, study_id: int) -> Study:
        """The study with that id."""
        with Session(self._reader) as session:
            return _study(session.get_one(StudyRow, study_id))

    def all(self) -> tuple[Study, ...]:
        """Every study, oldest first."""
        return self.page(None, None)

    def page(self, after: int | None, limit: int | None) -> tuple[Study, ...]:
        """The studies that follow the one with that id, oldest first; at most `limit`."""
        query = select(StudyRow).where(StudyRow.id > (after or 0)).order_by(StudyRow.id).limit(limit)
        with Session(self._reader) as session:
            return tuple(_study(row) for row in session.scalars(query))

    def counts(self, study_id: int) -> dict[str, int]:
        """Number of trials by state, of those that the search asked for."""
        asked = TrialRow.study_id == study_id, TrialRow.origin.not_like(f"{ORIGINALS}%")
        query = select(TrialRow.state, func.count()).where(*asked).group_by(TrialRow.state)
        with Session(self._reader) as session:
            return {state: count for state, count in session.execute(query)}

    def documents(self, study_id: int) -> dict[tuple[str, Part], DocumentSet]:
        """The document split: (task, part) -> its documents."""
        query = select(DocumentSetRow).where(DocumentSetRow.study_id == study_id)
        with Session(self._reader) as session:
            return {(row.task, as_part(row.part)): document_set(row) for row in session.scalars(query)}

    def reopen(self, study_id: int, spec: dict[str, Any]) -> None:
        """Let a study go on, with a specification that differs only in what may change."""
        undone: dict[str, Any] = dict.fromkeys(("why", "phase", "verdict", "finished_at", "ended"))
        changes = {"state": "running", "spec": spec} | undone
        with Session(self._writer) as session, session.begin():
            verdict = session.get_one(StudyRow, study_id).verdict
            if verdict is not None and session.scalar(_readings(study_id)) == 0:  # an earlier version noted none
                append_event(session, study_id, HOLDOUT_READ, {"trials": verdict["trials"], "readings": 1})
            session.execute(update(StudyRow).where(StudyRow.id == study_id).values(**changes))

    def pause(self, name: str) -> Study:
        """Let a study begin nothing more; what is being scored is scored to its end. Again does no harm.

        Raises:
            NotFound: there is none of that name.
            Conflict: it is over.
        """
        return self._change(name, "paused", ("running", "paused"))

    def resume(self, name: str) -> Study:
        """Let a paused study go on, and a failed one once what it failed of is mended. Again does no harm.

        Raises as `pause`, and Conflict if none of a failed study's trials could be scored: they stay told.
        """
        return self._change(name, "running", ("running", "paused", "failed"))

    def cancel(self, name: str) -> Study:
        """End a study now: what is being scored is stopped, what waits is dropped, what was scored stays.

        Raises as `pause`.
        """
        return self._change(name, "cancelled", ("running", "paused", "cancelled"))

    def enter(self, lead: Lead, phase: str) -> None:
        """Say how far the study is: a phase of `StudyRow.phase`. Saying it again does nothing.

        Raises:
            LeadLost: somebody else leads the study, or it is over.
        """
        with leading(self._writer, lead) as session:
            row = session.get_one(StudyRow, lead.study_id)
            if row.phase != phase:
                row.phase = phase
                append_event(session, row.id, "study.phase", {"phase": phase})

    def read_holdout(self, lead: Lead, trials: int) -> int:
        """Write down that the holdout is read after so many told trials; after as many as before it is no new reading.

        Returns:
            How many readings there were, this one included. Raises LeadLost as `enter`.
        """
        earlier = select(EventRow.data).where(EventRow.study_id == lead.study_id, EventRow.kind == HOLDOUT_READ)
        with leading(self._writer, lead) as session:
            readings = [data["trials"] for data in session.scalars(earlier)]
            unwritten = [] if readings else _unwritten_readings(session, lead.study_id)
            for after in dict.fromkeys((*unwritten, trials)):
                if after not in readings:
                    readings.append(after)
                    append_event(session, lead.study_id, HOLDOUT_READ, {"trials": after, "readings": len(readings)})
            return len(readings)

    def holdout_readings(self, study_id: int) -> int:
        """How many readings of the holdout are written down."""
        with Session(self._reader) as session:
            return session.scalars(_readings(study_id)).one()

    def finish(self, lead: Lead, verdict: dict[str, Any]) -> None:
        """Close the study with its final report. Raises LeadLost as `enter`."""
        with leading(self._writer, lead) as session:
            _close(session.get_one(StudyRow, lead.study_id), "finished", verdict=verdict)
            append_event(session, lead.study_id, "study.verdict", {"winner": verdict["winner"]})
            append_event(session, lead.study_id, "study.state", {"state": "finished", "why": None})

    def searching(self, lead: Lead, seconds: float) -> None:
        """Add to the time that the study was searched. Raises LeadLost as `enter`."""
        with leading(self._writer, lead) as session:
            session.get_one(StudyRow, lead.study_id).searched_seconds += seconds

    def end_search(self, lead: Lead, ended: dict[str, Any]) -> None:
        """Write down why the search is over; it stays so until the study is reopened. Raises LeadLost as `enter`."""
        with leading(self._writer, lead) as session:
            row = session.get_one(StudyRow, lead.study_id)
            if row.ended is None:
                row.ended = ended
                append_event(session, row.id, "search.ended", ended)

    def fail(self, lead: Lead, why: str) -> None:
        """Close the study without a report. Raises LeadLost as `enter`."""
        with leading(self._writer, lead) as session:
            why = storable(why)
            _close(session.get_one(StudyRow, lead.study_id), "failed", why=why)
            append_event(session, lead.study_id, "study.state", {"state": "failed", "why": why})

    def _change(self, name: str, state: str, allowed: tuple[str, ...]) -> Study:
        study_id = self.get(name).id
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            lock_studies(session, [study_id])
            row = session.get_one(StudyRow, study_id)
            if row.state not in allowed:
                raise Conflict(f"study {name!r} is {row.state}, so it cannot be {_DONE[state]}")
            if row.state != state:
                if row.state == "failed":
                    _require_a_score(session, row)
                    _reopen(session, row)
                row.state = state
                if state == "cancelled":
                    _cancel(session, row)
                append_event(session, study_id, "study.state", {"state": state, "why": row.why})
                notify(session, CONTROLLER)
            return _study(row)


_DONE = {"running": "resumed", "paused": "paused", "cancelled": "cancelled"}


def _readings(study_id: int) -> Select[int]:
    return select(func.count()).where(EventRow.study_id == study_id, EventRow.kind == HOLDOUT_READ)


def _require_a_score(session: Session, row: StudyRow) -> None:
    """Refuse to let a study go on that would only fail again: its trials are told, and none has a value."""
    query = select(func.count(), func.count(TrialRow.value)).where(TrialRow.study_id == row.id)
    told, scored = session.execute(query.where(TrialRow.told_order.is_not(None))).one()
    if told and not scored:
        problem = "failed because none of its trials could be scored, so it cannot be resumed"
        raise Conflict(f"study {row.name!r} {problem}; mend that, then submit it under another name")


def _reopen(session: Session, row: StudyRow) -> None:
    """Let what failed at the end be tried again: the finalists' scores, on either part, and the verdict."""
    row.why = row.finished_at = None
    retry_failed(session, row.id)
    forget_key(session, judging(row.id))


def _unwritten_readings(session: Session, study_id: int) -> list[int]:
    """After how many trials an earlier version, which did not write it down, had the holdout scored."""
    tried = select(func.count(TrialRow.id)).where(
        TrialRow.study_id == study_id, TrialRow.created_at <= EvaluationRow.created_at
    )
    held = (EvaluationRow.study_id == study_id, EvaluationRow.part == "holdout")
    query = select(tried.correlate(EvaluationRow).scalar_subquery()).where(*held)
    return sorted(set(session.scalars(query)))


def _close(row: StudyRow, state: str, *, why: str | None = None, verdict: dict[str, Any] | None = None) -> None:
    row.state, row.why, row.verdict, row.finished_at = state, why, verdict, time.time()
    row.phase = row.leader = row.lead_token = row.lead_expires_at = None


def _cancel(session: Session, row: StudyRow) -> None:
    why = "the study was cancelled"
    _close(row, "cancelled", why=why)
    open_trials = (TrialRow.study_id == row.id, TrialRow.state == "open")
    session.execute(
        update(TrialRow).where(*open_trials).values(state="cancelled", why=why, told_at=time.time()),
        execution_options={"synchronize_session": False},
    )
    cancel_all(session, row.id, why)


def _study(row: StudyRow) -> Study:
    return Study(
        id=row.id,
        name=row.name,
        spec=row.spec,
        frozen_digest=row.frozen_digest,
        setup=row.setup,
        state=row.state,
        why=row.why,
        phase=row.phase,
        verdict=row.verdict,
        created_at=row.created_at,
        finished_at=row.finished_at,
        searched_seconds=row.searched_seconds,
        ended=row.ended,
    )
