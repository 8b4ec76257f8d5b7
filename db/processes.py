"""The processes of the service, as they say of themselves now and then."""

import os
import socket
from typing import Any

from sqlalchemy import Engine, delete, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from db.clock import epoch_now
from db.models import ProcessRow
from db.records import Process
from db.session import reader

ALIVE_SECONDS = 30.0
_FORGOTTEN_SECONDS = 86_400.0


class Processes:
    """The processes of one database."""

    def __init__(self, engine: Engine) -> None:
        self._reader, self._writer = reader(engine), engine

    def beat(self, name: str, role: str, detail: dict[str, Any]) -> None:
        """Say that this process is alive. What `detail` does not name stays as it was said before."""
        try:
            self._beat(name, role, detail)
        except IntegrityError:  # two threads of one process began at once
            self._beat(name, role, detail)

    def leave(self, name: str) -> None:
        """Say that the process is gone."""
        with Session(self._writer) as session, session.begin():
            session.execute(delete(ProcessRow).where(ProcessRow.name == name))

    def alive(self, role: str, seconds: float = ALIVE_SECONDS) -> tuple[Process, ...]:
        """Those of a role that were heard of within that time, by name."""
        query = (
            select(ProcessRow)
            .where(ProcessRow.role == role, ProcessRow.seen_at > epoch_now() - seconds)
            .order_by(ProcessRow.name)
        )
        with Session(self._reader) as session:
            return tuple(
                Process(row.name, row.role, row.host, row.pid, row.started_at, row.seen_at, row.detail)
                for row in session.scalars(query)
            )

    def seconds_since(self, role: str) -> float | None:
        """How long ago the last of a role was heard of; None if never."""
        query = (
            select(epoch_now() - ProcessRow.seen_at).where(ProcessRow.role == role).order_by(ProcessRow.seen_at.desc())
        )
        with Session(self._reader) as session:
            return session.scalars(query.limit(1)).first()

    def _beat(self, name: str, role: str, detail: dict[str, Any]) -> None:
        with Session(self._writer) as session, session.begin():
            row = session.get(ProcessRow, name, with_for_update=True)
            if row is None:
                session.execute(delete(ProcessRow).where(ProcessRow.seen_at < epoch_now() - _FORGOTTEN_SECONDS))
                now = session.scalar(select(epoch_now())) or 0.0
                host, pid = socket.gethostname(), os.getpid()
                session.add(
                    ProcessRow(name=name, role=role, host=host, pid=pid, started_at=now, seen_at=now, detail=detail)
                )
                return
            session.execute(
                update(ProcessRow)
                .where(ProcessRow.name == name)
                .values(seen_at=epoch_now(), detail={**row.detail, **detail}),
                execution_options={"synchronize_session": False},
            )
