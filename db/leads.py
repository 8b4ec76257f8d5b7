"""Who leads a study: the one controller whose writes count, elected by a lease with a fencing token on its row.

A controller that was thought dead and goes on (frozen, cut off) finds its token gone: its transaction changes
nothing and ends with LeadLost.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import ColumnElement, Engine, or_, select, update
from sqlalchemy.orm import Session

from db.clock import epoch_now
from db.events import holds_study
from db.leases import changed
from db.models import StudyRow
from db.records import Lead
from db.session import reader
from db.wakeups import CONTROLLER, notify
from merging.errors import Conflict

LED = ("running", "paused")  # the states in which a study has something to lead


class LeadLost(Conflict):
    """The study is led by another controller now, or has come to an end: stop, and write nothing."""


class Leads:
    """The leads of one database."""

    def __init__(self, engine: Engine) -> None:
        self._reader, self._writer = reader(engine), engine

    def vacant(self) -> tuple[int, ...]:
        """Ids of the studies that nobody leads and somebody should, oldest first."""
        query = select(StudyRow.id).where(StudyRow.state.in_(LED), _vacant()).order_by(StudyRow.id)
        with Session(self._reader) as session:
            return tuple(session.scalars(query))

    def take(self, study_id: int, owner: str, seconds: float) -> Lead | None:
        """Lead the study, if nobody does."""
        return self._take(study_id, owner, seconds, by_force=False)

    def seize(self, study_id: int, owner: str) -> Lead:
        """Lead the study, whoever did, for as long as nobody else seizes it: the caller knows that he is alone."""
        lead = self._take(study_id, owner, None, by_force=True)
        if lead is None:
            raise LeadLost(f"study {study_id} is not running")
        return lead

    def renew(self, lead: Lead, seconds: float) -> bool:
        """Go on leading; False if somebody else does, or the study is over."""
        this = (StudyRow.id == lead.study_id, StudyRow.lead_token == lead.token, StudyRow.state.in_(LED))
        with Session(self._writer) as session, session.begin():
            return changed(session, update(StudyRow).where(*this).values(lead_expires_at=epoch_now() + seconds))

    def release(self, lead: Lead) -> None:
        """Let another lead at once."""
        this = (StudyRow.id == lead.study_id, StudyRow.lead_token == lead.token)
        freed = update(StudyRow).where(*this).values(leader=None, lead_token=None, lead_expires_at=None)
        with Session(self._writer) as session, session.begin():
            if changed(session, freed):
                notify(session, CONTROLLER)

    def _take(self, study_id: int, owner: str, seconds: float | None, *, by_force: bool) -> Lead | None:
        token = uuid.uuid4().hex
        which = [StudyRow.id == study_id, StudyRow.state.in_(LED)]
        if not by_force:
            which.append(_vacant())
        until = None if seconds is None else epoch_now() + seconds
        taken = update(StudyRow).where(*which).values(leader=owner, lead_token=token, lead_expires_at=until)
        with Session(self._writer) as session, session.begin():
            return Lead(study_id, token) if changed(session, taken) else None


def _vacant() -> ColumnElement[bool]:
    return or_(StudyRow.lead_token.is_(None), StudyRow.lead_expires_at < epoch_now())


@contextmanager
def leading(writer: Engine, lead: Lead, *, states: tuple[str, ...] = LED) -> Iterator[Session]:
    """A transaction that counts only while the lead is ours; it holds the study's row.

    Raises:
        LeadLost: somebody else leads, or the study is in none of these states.
    """
    with Session(writer, expire_on_commit=False) as session, session.begin():
        ours = (StudyRow.id == lead.study_id, StudyRow.lead_token == lead.token, StudyRow.state.in_(states))
        if session.scalar(select(StudyRow.id).where(*ours).with_for_update(key_share=True)) is None:
            raise LeadLost(f"study {lead.study_id} is led by another controller, or not {' or '.join(states)} any more")
        holds_study(session, lead.study_id)
        yield session
