"""Logs of the service's processes: one line an event, as text or JSON, with the ids of what it is about."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

FIELDS = ("action", "study", "trial", "evaluation", "attempt", "outcome", "worker", "job", "request")


def set_up_logs(form: str) -> None:
    """Send everything that is logged to stderr, in that form (`text` or `json`)."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("alembic", "httpx", "httpcore"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _ids(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name in FIELDS if (value := getattr(record, name, None)) is not None}


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        """The line, followed by the ids."""
        ids = " ".join(f"{name}={value}" for name, value in _ids(record).items())
        return f"{super().format(record)} [{ids}]" if ids else super().format(record)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """One JSON object."""
        content = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_ids(record),
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps(content, default=str)
