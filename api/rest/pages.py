"""Lists in parts: an opaque cursor says where the next part begins."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Annotated, TypeVar

from fastapi import Query

from api.rest.views import Page
from merging.errors import InvalidInput

MOST = 100
Cursor = Annotated[str | None, Query(description="`next` of the part before; without it the list begins")]
Limit = Annotated[int, Query(ge=1, le=MOST, description="most items in this part")]
Row = TypeVar("Row")
Shown = TypeVar("Shown")


class BadCursor(InvalidInput):
    """A cursor that no list has given."""


def after(cursor: str | None, of: str) -> int | None:
    """The position that the cursor stands for; None for the beginning.

    Args:
        of: which list it must be of.

    Raises:
        BadCursor: it is of no list, or of another.
    """
    if cursor is None:
        return None
    try:
        kind, _, position = base64.urlsafe_b64decode(cursor.encode()).decode().partition(":")
        if kind == of and position.isascii() and position.isdigit() and len(position) < 10:
            return int(position)
    except (binascii.Error, UnicodeError):
        pass
    raise BadCursor("cursor", cursor, "is no cursor of this list", "use `next` of the part before, or leave it out")


def page(
    rows: Sequence[Row], limit: int, of: str, position: Callable[[Row], int], show: Callable[[Row], Shown]
) -> Page[Shown]:
    """A part of a list.

    Args:
        rows: one more than `limit`, if there are as many.
    """
    more = len(rows) > limit
    following = base64.urlsafe_b64encode(f"{of}:{position(rows[limit - 1])}".encode()).decode() if more else None
    return Page(items=[show(row) for row in rows[:limit]], next=following)
