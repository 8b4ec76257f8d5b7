"""Engines and sessions. SQLite runs in WAL, and what writes begins with BEGIN IMMEDIATE.

SQLite's defaults lose concurrent updates. What only reads takes no lock, so it never waits for a writer.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DatabaseError
from sqlalchemy.pool import ConnectionPoolEntry

from merging.errors import InvalidInput, OutputError

_READS = "mergesearch_reads"
_MOVE = "move it away or name another --home"


class BrokenDatabase(InvalidInput):
    """The database cannot be used: no database at all, somebody else's, or out of reach."""


def sqlite_url(path: Path) -> str:
    """The database URL of a SQLite file."""
    return f"sqlite:///{path}"


def make_engine(url: str) -> Engine:
    """An engine with the settings that keep concurrent writers from losing or blocking each other.

    Measured with pysqlite's default transactions: half of concurrent read-modify-writes are lost without an
    error; with BEGIN IMMEDIATE none is. `synchronous=NORMAL` may lose the last commits on power loss, never
    on a killed process, and never corrupts.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
    return engine


def reader(engine: Engine) -> Engine:
    """The same engine and connections, for transactions that only read: they see one state and lock nobody out."""
    return engine.execution_options(**{_READS: True})


@contextmanager
def blaming_the_database(engine: Engine) -> Iterator[None]:
    """Turns what the database's driver raises in the block into a BrokenDatabase."""
    try:
        yield
    except DatabaseError as error:
        raise broken(engine, str(error.orig), _remedy(error.orig)) from error


def broken(engine: Engine, cause: str, remedy: str = _MOVE) -> BrokenDatabase:
    """The error that names the database, without its password, and the cause on one line."""
    place = engine.url.database if engine.dialect.name == "sqlite" else engine.url.render_as_string(hide_password=True)
    return BrokenDatabase("database", place, f"cannot be used ({' '.join(cause.split())})", remedy)


def _remedy(cause: BaseException | None) -> str:
    """A database that is merely busy is sound: nobody must be told to move it away."""
    code = getattr(cause, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the rest tells kinds of one error apart
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "wait for the process that holds it, or name another --home"
    return _MOVE


def _sqlite_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # SQLAlchemy's BEGIN is ours, not pysqlite's
    cursor = connection.cursor()
    try:
        for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
    except sqlite3.Error:
        connection.close()  # the pool does not have it yet, so nobody else would
        raise
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    reads = connection.get_execution_options().get(_READS)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def prepare_home(home: Path) -> Path:
    """The folder that holds the database files, made if need be.

    Raises:
        OutputError: it cannot be made or written.
    """
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe = home / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OutputError(
            "home", str(home), f"cannot be written ({error.strerror})", "choose another folder with --home"
        ) from error
    return home
