"""What happened in a study, numbered without gaps, for those who watch it."""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Engine, func, insert, select
from sqlalchemy.orm import Session

from db.models import EventRow, StudyRow
from db.records import Event
from db.session import reader
from db.wakeups import EVENT, notify

_HELD = "studies held"  # in a session's notes; a session here lives for one transaction


class Events:
    """The events of one database."""

    def __init__(self, engine: Engine) -> None:
        self._reader = reader(engine)

    def after(self, study_id: int, seq: int, limit: int = 500) -> tuple[Event, ...]:
        """The study's events that follow number `seq`, in order."""
        query = (
            select(EventRow)
            .where(EventRow.study_id == study_id, EventRow.seq > seq)
            .order_by(EventRow.seq)
            .limit(limit)
        )
        with Session(self._reader) as session:
            return tuple(Event(row.seq, row.kind, row.data, row.created_at) for row in session.scalars(query))

    def last(self, study_id: int) -> int:
        """The number of the study's last event; 0 if there is none."""
        query = select(func.coalesce(func.max(EventRow.seq), 0)).where(EventRow.study_id == study_id)
        with Session(self._reader) as session:
            return int(session.scalar(query) or 0)


def append_event(session: Session, study_id: int, kind: str, data: dict[str, Any]) -> None:
    """Write the study's next event; inside the transaction that makes it true.

    The study's row is locked first, so that numbers appear in the order in which transactions end: a reader who
    has seen one has missed none before it.
    """
    session.flush()
    lock_studies(session, [study_id])
    following = select(func.coalesce(func.max(EventRow.seq), 0) + 1).where(EventRow.study_id == study_id)
    event = {"study_id": study_id, "kind": kind, "data": data, "created_at": time.time()}
    session.execute(insert(EventRow).values(seq=following.scalar_subquery(), **event))
    notify(session, EVENT)


def lock_studies(session: Session, study_ids: Sequence[int]) -> None:
    """Hold the rows of these studies until the transaction ends; those it holds already are not asked for again.

    The lock keeps other such holders out, not those who insert rows that refer to the study.
    """
    held = session.info.setdefault(_HELD, set())
    wanted = set(study_ids) - held
    if wanted and session.get_bind().dialect.name != "sqlite":  # which holds the whole database anyway
        which = select(StudyRow.id).where(StudyRow.id.in_(wanted)).order_by(StudyRow.id)
        session.execute(which.with_for_update(key_share=True)).all()
    held |= wanted


def holds_study(session: Session, study_id: int) -> None:
    """Note that the transaction holds the study's row, locked by a query of the caller's."""
    session.info.setdefault(_HELD, set()).add(study_id)
