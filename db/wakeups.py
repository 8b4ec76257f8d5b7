"""Who waits for a change is woken by it: LISTEN and NOTIFY in PostgreSQL; elsewhere the file is looked at.

A wake-up is a hint and may be lost; whoever waits does so for a limited time and then looks for himself.
"""

import time
from typing import Any

import psycopg
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import PoolProxiedConnection

from db.session import POSTGRESQL

CONTROLLER, CLERK, EVENT = "controller", "clerk", "event"
_CHANNEL = "mergesearch_"
_SAID = "channels notified"
_LOOK_SECONDS = 0.1
_RETRY_SECONDS = 0.5


def notify(session: Session, channel: str) -> None:
    """Wake those who wait on the channel, once the transaction is committed."""
    said = session.info.setdefault(_SAID, set())  # in the session's notes: once a transaction is enough
    if channel not in said and session.get_bind().dialect.name == "postgresql":
        said.add(channel)
        session.execute(text("SELECT pg_notify(:channel, '')"), {"channel": _CHANNEL + channel})


class Wakeups:
    """One waiter on one channel. For one thread."""

    def __init__(self, engine: Engine, channel: str) -> None:
        self._engine, self._channel = engine, channel
        self._listening: psycopg.Connection[Any] | None = None
        self._looking: PoolProxiedConnection | None = None
        self._version = self._seen() if engine.dialect.name == "sqlite" else 0

    def wait(self, seconds: float) -> bool:
        """Return when woken, or after that time; whether something has woken us.

        A database that is away is no reason to return sooner or to fail.
        """
        seconds = max(0.0, seconds)
        return self._look(seconds) if self._engine.dialect.name == "sqlite" else self._listen(seconds)

    def close(self) -> None:
        """Give the connection back."""
        for connection in (self._listening, self._looking):
            if connection is not None:
                connection.close()
        self._listening = self._looking = None

    def _listen(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while True:
            try:
                if self._listening is None:
                    self._listening = self._connected()
                    return True  # what was said before nobody heard
                left = max(0.0, until - time.monotonic())
                return any(True for _ in self._listening.notifies(timeout=left, stop_after=1))
            except psycopg.Error:
                if self._listening is not None:
                    self._listening.close()
                    self._listening = None
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, _RETRY_SECONDS))  # it may take a while to come back

    def _connected(self) -> psycopg.Connection[Any]:
        url = self._engine.url.set(drivername="postgresql").render_as_string(hide_password=False)
        connection = psycopg.connect(url, autocommit=True, **POSTGRESQL)
        try:
            connection.execute(f"LISTEN {_CHANNEL}{self._channel}")
        except psycopg.Error:
            connection.close()
            raise
        return connection

    def _look(self, seconds: float) -> bool:
        until = time.monotonic() + seconds
        while True:
            version = self._seen()
            if version != self._version:
                self._version = version
                return True
            left = until - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, _LOOK_SECONDS))

    def _seen(self) -> int:
        """A number that changes whenever another connection commits."""
        if self._looking is None:
            self._looking = self._engine.raw_connection()  # outside of any transaction: within one nothing changes
        cursor = self._looking.cursor()
        cursor.execute("PRAGMA data_version")
        (version,) = cursor.fetchone() or (0,)
        cursor.close()
        return int(version)
