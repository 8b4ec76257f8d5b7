"""What is known of the request in hand wherever it is worked on: its id, for answers and logs, and its path."""

import re
import uuid
from contextvars import ContextVar
from dataclasses import dataclass

_PLAIN = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True)
class Call:
    """One HTTP request."""

    request_id: str
    path: str


CALL: ContextVar[Call | None] = ContextVar("mergesearch_call", default=None)


def request_id(given: str | None) -> str:
    """The caller's own id if it is a plain word, else a new one."""
    return given if given and _PLAIN.fullmatch(given) else uuid.uuid4().hex
