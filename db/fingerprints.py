"""Remembered content fingerprints of model folders: reading every byte of a model takes minutes."""

from hashlib import sha256

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from db.models import FingerprintRow
from db.session import reader


class Fingerprints:
    """Remembered content fingerprints of model folders, keyed by what their files looked like."""

    def __init__(self, engine: Engine) -> None:
        self._reader, self._writer = reader(engine), engine

    def get(self, key: str) -> str | None:
        """The remembered fingerprint, or None."""
        with Session(self._reader) as session:
            row = session.get(FingerprintRow, _short(key))
            return row.fingerprint if row else None

    def put(self, key: str, fingerprint: str) -> None:
        """Remember a fingerprint."""
        with Session(self._writer) as session, session.begin():
            session.merge(FingerprintRow(key=_short(key), fingerprint=fingerprint))


def _short(key: str) -> str:
    """A key as the column holds it: paths are of any length."""
    return sha256(key.encode("utf-8", "surrogateescape")).hexdigest()
