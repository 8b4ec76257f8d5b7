"""Desk work as leased rows: submissions to check, studies to judge, exports to write."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Engine, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.clock import epoch_now
from db.events import append_event
from db.leases import EXPIRED, FREE, MAX_ATTEMPTS, claim, claimable, expired, with_token
from db.models import IdempotencyRow, JobRow
from db.records import Job, JobLease
from db.session import reader
from db.wakeups import CLERK, CONTROLLER, EVENT, notify
from merging.errors import Conflict, NotFound


@dataclass(frozen=True)
class Idempotency:
    """What makes a request that is sent twice be done once.

    Attributes:
        principal: who asks.
        key: his name for the request.
        digest: of its content.
    """

    principal: str
    key: str
    digest: str


def judging(study_id: int) -> Idempotency:
    """The verdict on a study is reached once."""
    return Idempotency("controller", f"judge:{study_id}", "")


def forget_key(session: Session, key: Idempotency) -> None:
    """Let the request be done anew; for use inside a caller's transaction."""
    row = session.get(IdempotencyRow, (key.principal, key.key))
    if row is not None:
        session.delete(row)


class IdempotencyMismatch(Conflict):
    """The key was used for another request before."""


class Jobs:
    """The jobs of one database."""

    def __init__(self, engine: Engine) -> None:
        self._reader, self._writer = reader(engine), engine

    def add(
        self,
        kind: str,
        content: dict[str, Any],
        *,
        study_id: int | None = None,
        idempotency: Idempotency | None = None,
    ) -> Job:
        """Queue a job; where the same request was made before, that one's job.

        Raises:
            IdempotencyMismatch: the key names another request.
        """
        try:
            return self._add(kind, content, study_id, idempotency)
        except IntegrityError:  # the same key at the same moment: theirs stands now
            return self._add(kind, content, study_id, idempotency)

    def _add(self, kind: str, content: dict[str, Any], study_id: int | None, idempotency: Idempotency | None) -> Job:
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            if idempotency is not None:
                earlier = session.get(IdempotencyRow, (idempotency.principal, idempotency.key))
                if earlier is not None:
                    return _same(session, earlier, idempotency)
            row = JobRow(
                kind=kind, study_id=study_id, content=content, state="queued", attempts=0, created_at=time.time()
            )
            session.add(row)
            session.flush()
            if idempotency is not None:
                session.add(
                    IdempotencyRow(
                        principal=idempotency.principal,
                        key=idempotency.key,
                        digest=idempotency.digest,
                        job_id=row.id,
                        created_at=time.time(),
                    )
                )
            _tell(session, row)
            notify(session, CLERK)
            return _job(row)

    def earlier(self, idempotency: Idempotency) -> Job | None:
        """The job that the same request made before, if it did.

        Raises:
            IdempotencyMismatch: the key names another request.
        """
        with Session(self._reader) as session:
            row = session.get(IdempotencyRow, (idempotency.principal, idempotency.key))
            return None if row is None else _same(session, row, idempotency)

    def get(self, job_id: int, kind: str) -> Job:
        """The job with that id.

        Raises:
            NotFound: there is none of that kind.
        """
        with Session(self._reader) as session:
            row = session.get(JobRow, job_id)
            if row is None or row.kind != kind:
                raise NotFound(f"there is no {kind} job {job_id}; check the number")
            return _job(row)

    def of_study(self, study_id: int, kind: str, after: int | None = None, limit: int | None = None) -> tuple[Job, ...]:
        """The study's jobs of that kind that follow the one with that id, oldest first; at most `limit`."""
        which = (JobRow.study_id == study_id, JobRow.kind == kind, JobRow.id > (after or 0))
        query = select(JobRow).where(*which).order_by(JobRow.id).limit(limit)
        with Session(self._reader) as session:
            return tuple(_job(row) for row in session.scalars(query))

    def claim_next(self, kinds: Sequence[str], owner: str, seconds: float) -> JobLease | None:
        """The oldest job of these kinds that is free; None if there is none."""
        query = select(JobRow.id).where(JobRow.kind.in_(kinds), claimable(JobRow)).order_by(JobRow.id)
        with Session(self._reader) as session:
            waiting = tuple(session.scalars(query))
        for job_id in waiting:
            with Session(self._writer) as session, session.begin():
                row = claim(session, JobRow, job_id, owner, seconds)
                if row is not None and row.token is not None:
                    _tell(session, row)
                    return JobLease(_job(row), row.token)
        return None

    def renew(self, lease: JobLease, seconds: float) -> bool:
        """Keep the lease; False if it is lost."""
        with Session(self._writer) as session, session.begin():
            return with_token(session, JobRow, lease.job.id, lease.token, {"expires_at": epoch_now() + seconds})

    def finish(self, lease: JobLease, result: dict[str, Any]) -> bool:
        """End the job well; False (and nothing written) if the lease is lost."""
        return self._end(lease, {"state": "done", "result": result})

    def refuse(self, lease: JobLease, problem: dict[str, Any]) -> bool:
        """End the job with a problem; False (and nothing written) if the lease is lost."""
        return self._end(lease, {"state": "failed", "problem": problem})

    def sweep(self) -> None:
        """Take back jobs whose lease has expired: queued again, or failed once their attempts are used up."""
        self._take_back(expired(JobRow))

    def release(self, owner: str, *, died: bool = True) -> None:
        """Take back at once what a clerk holds, as `sweep` does.

        Args:
            died: False: it was told to leave, and the attempt does not count.
        """
        self._take_back((JobRow.owner == owner) & (JobRow.state == "leased"), died=died)

    def _take_back(self, which: ColumnElement[bool], *, died: bool = True) -> None:
        with Session(self._reader) as session:
            ids = tuple(session.scalars(select(JobRow.id).where(which).order_by(JobRow.id)))
        for job_id in ids:  # one a transaction: nobody waits in a circle
            with Session(self._writer) as session, session.begin():
                row = session.scalar(select(JobRow).where(JobRow.id == job_id, which).with_for_update())
                if row is None:
                    continue
                row.owner = row.token = row.expires_at = None
                row.state = "queued"
                row.attempts -= 0 if died else 1
                if row.attempts >= MAX_ATTEMPTS:
                    row.state, row.finished_at = "failed", time.time()
                    row.problem = {"detail": f"{EXPIRED}, {MAX_ATTEMPTS} times; see the controller's log"}
                _tell(session, row)
                for channel in (CLERK,) if row.state == "queued" else (CONTROLLER, EVENT):
                    notify(session, channel)

    def _end(self, lease: JobLease, values: dict[str, Any]) -> bool:
        with Session(self._writer) as session, session.begin():
            ended = values | FREE | {"finished_at": time.time()}
            if not with_token(session, JobRow, lease.job.id, lease.token, ended):
                return False
            _tell(session, session.get_one(JobRow, lease.job.id))
            notify(session, CONTROLLER)
            notify(session, EVENT)
            return True


def _tell(session: Session, row: JobRow) -> None:
    """Exports are among what is told of a study."""
    if row.kind == "export" and row.study_id is not None:
        append_event(session, row.study_id, "export.state", {"export": row.id, "state": row.state})


def _same(session: Session, earlier: IdempotencyRow, now: Idempotency) -> Job:
    if earlier.digest != now.digest:
        raise IdempotencyMismatch(f"the Idempotency-Key {now.key!r} was used for another request; use a new one")
    return _job(session.get_one(JobRow, earlier.job_id))


def _job(row: JobRow) -> Job:
    return Job(
        id=row.id,
        kind=row.kind,
        study_id=row.study_id,
        state=row.state,
        content=row.content,
        result=row.result,
        problem=row.problem,
        attempts=row.attempts,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )
