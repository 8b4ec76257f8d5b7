"""Leased rows: work that one process at a time holds, for a while, by the database's clock.

A lease carries a fencing token. Whoever lost it (slow, cut off, thought dead) may go on working, but nothing it
writes counts: the update finds no row with its token. Every step is one conditional update.
"""

import uuid
from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import ColumnElement, String, or_, select, update
from sqlalchemy.orm import Mapped, Session, mapped_column

from db.clock import epoch_now

MAX_ATTEMPTS = 3
EXPIRED = "its worker was not heard of any more"


class Leased:
    """The columns of leased work.

    Attributes:
        state: `queued`, `leased`, then an end.
        owner, token, expires_at: who holds it, the fencing token of this lease, when it ends by the database's clock.
        attempts: how often it was begun.
    """

    id: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    owner: Mapped[str | None] = mapped_column(String(200))
    token: Mapped[str | None] = mapped_column(String(32))
    expires_at: Mapped[float | None]
    attempts: Mapped[int]


Row = TypeVar("Row", bound=Leased)
FREE: dict[str, Any] = {"owner": None, "token": None, "expires_at": None}


def claimable(row: type[Leased]) -> ColumnElement[bool]:
    """Queued, or its lease has expired and it may be begun once more."""
    expired = (row.state == "leased") & (row.expires_at < epoch_now()) & (row.attempts < MAX_ATTEMPTS)
    return or_(row.state == "queued", expired)


def claim(
    session: Session, row: type[Row], id_: int, owner: str, seconds: float, *also: ColumnElement[bool], **values: Any
) -> Row | None:
    """Take the row if it is free; the row with its new token, or None.

    Args:
        also: more that must hold.
        values: more columns to set.
    """
    taken = (
        update(row)
        .where(row.id == id_, claimable(row), *also)
        .values(
            state="leased",
            owner=owner,
            token=uuid.uuid4().hex,
            expires_at=epoch_now() + seconds,
            attempts=row.attempts + 1,
            **values,
        )
        .returning(row)
        .execution_options(synchronize_session=False)
    )
    return session.scalars(taken).one_or_none()


def with_token(session: Session, row: type[Leased], id_: int, token: str, values: Mapping[str, Any]) -> bool:
    """Change the row if the token is still current; whether it was."""
    current = (row.id == id_, row.token == token, row.state == "leased")
    return changed(session, update(row).where(*current).values(**values))


def expired(row: type[Leased]) -> ColumnElement[bool]:
    """Leased, and the time is over."""
    return (row.state == "leased") & (row.expires_at < epoch_now())


def seconds_to_next_expiry(session: Session, row: type[Leased]) -> float | None:
    """Seconds until the first lease in the table ends (below zero: it has); None if nothing is leased."""
    query = select(row.expires_at - epoch_now()).where(row.state == "leased").order_by(row.expires_at).limit(1)
    return session.scalar(query)


def changed(session: Session, statement: Any) -> bool:
    """Run an update of one row; whether there was such a row."""
    done = session.execute(statement, execution_options={"synchronize_session": False})
    return bool(done.rowcount == 1)  # type: ignore[attr-defined]
