"""API keys. A secret is shown once, when it is made; only its SHA-256 is kept."""

import hmac
import re
import secrets
import time
from collections.abc import Sequence
from hashlib import sha256

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from db.models import KeyRow
from db.records import ApiKey
from db.session import reader
from merging.errors import InvalidInput, NotFound

SCOPES = ("read", "run", "admin")  # each implies those before it
_FRESH_SECONDS = 60.0
_PREFIX = re.compile(r"[0-9a-f]{8}")
_FORM = re.compile(rf"ms_({_PREFIX.pattern})_[A-Za-z0-9_-]{{43}}")


class Keys:
    """The API keys of one database."""

    def __init__(self, engine: Engine) -> None:
        self._reader, self._writer = reader(engine), engine

    def create(self, name: str, scopes: Sequence[str], expires_at: float | None = None) -> tuple[ApiKey, str]:
        """A new key and its secret, which nobody can be told again.

        Raises:
            InvalidInput: a scope is unknown.
        """
        for scope in scopes:
            if scope not in SCOPES:
                raise InvalidInput("scope", scope, "is unknown", f"use one of {', '.join(SCOPES)}")
        prefix = secrets.token_hex(4)
        secret = f"ms_{prefix}_{secrets.token_urlsafe(32)}"
        row = KeyRow(
            name=name,
            prefix=prefix,
            digest=_digest(secret),
            scopes=list(scopes),
            created_at=time.time(),
            expires_at=expires_at,
        )
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            session.add(row)
        return _key(row), secret

    def authenticate(self, secret: str) -> ApiKey | None:
        """The key with that secret, if it is neither revoked nor expired; notes that it was used."""
        form = _FORM.fullmatch(secret)
        found = self.by_prefix(form[1]) if form else None
        if found is None or not hmac.compare_digest(found[1], _digest(secret)):
            return None
        key, _ = found
        now = time.time()
        if (key.last_used_at or 0.0) < now - _FRESH_SECONDS:
            used = update(KeyRow).where(KeyRow.id == key.id).values(last_used_at=now)
            with Session(self._writer) as session, session.begin():
                session.execute(used, execution_options={"synchronize_session": False})
        return key

    def by_prefix(self, prefix: str) -> tuple[ApiKey, str] | None:
        """The valid key of that prefix and its digest; None if there is none, or it is revoked or expired."""
        if not _PREFIX.fullmatch(prefix):  # anything may be sent; what is no key is not looked for
            return None
        with Session(self._reader) as session:
            row = session.scalar(select(KeyRow).where(KeyRow.prefix == prefix))
            if row is None or row.revoked_at is not None:
                return None
            if row.expires_at is not None and row.expires_at <= time.time():
                return None
            return _key(row), row.digest

    def all(self) -> tuple[ApiKey, ...]:
        """Every key, oldest first."""
        with Session(self._reader) as session:
            return tuple(_key(row) for row in session.scalars(select(KeyRow).order_by(KeyRow.id)))

    def revoke(self, prefix: str) -> ApiKey:
        """End a key. Again does no harm.

        Raises:
            NotFound: there is none of that prefix.
        """
        with Session(self._writer, expire_on_commit=False) as session, session.begin():
            row = session.scalar(select(KeyRow).where(KeyRow.prefix == prefix))
            if row is None:
                raise NotFound(f"there is no key {prefix!r}; `mergesearch keys list` shows them")
            row.revoked_at = row.revoked_at or time.time()
            return _key(row)


def _digest(secret: str) -> str:
    return sha256(secret.encode()).hexdigest()


def _key(row: KeyRow) -> ApiKey:
    return ApiKey(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        expires_at=row.expires_at,
        last_used_at=row.last_used_at,
        revoked_at=row.revoked_at,
    )
