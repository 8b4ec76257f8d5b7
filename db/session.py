"""Engines and sessions, over PostgreSQL or SQLite. SQLite runs in WAL, and what writes begins with BEGIN IMMEDIATE.

SQLite's defaults lose concurrent updates. What only reads takes no lock, so it never waits for a writer.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError, DatabaseError, DBAPIError, InterfaceError, NoSuchModuleError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import ConnectionPoolEntry

from merging.errors import InvalidInput, OutputError

_READS = "mergesearch_reads"
# a server that vanished without a word is noticed within a minute, also by who waits for its answer
POSTGRESQL: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 50_000,
}
_BUSY_SECONDS = 30  # how long SQLite waits for another's lock
_IDLE_SECONDS = 15  # a process frozen within a transaction must not keep what it has locked
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
    try:
        dialect = make_url(url).get_dialect().name
    except (ArgumentError, NoSuchModuleError) as error:
        raise BrokenDatabase("database", None, f"the URL is none ({error})", "write postgresql+psycopg://…") from error
    if dialect == "sqlite":
        engine = create_engine(url)
        event.listen(engine, "connect", _sqlite_connect)
        event.listen(engine, "begin", _sqlite_begin)
        return engine
    # a connection that died with its server is replaced before it is used; nobody waits for ever
    engine = create_engine(url, pool_pre_ping=True, pool_timeout=10, connect_args=POSTGRESQL)
    event.listen(engine, "connect", _postgresql_connect)
    return engine


def reader(engine: Engine) -> Engine:
    """The same engine and connections, for transactions that only read: they see one state and lock nobody out."""
    if engine.dialect.name == "sqlite":
        return engine.execution_options(**{_READS: True})
    return engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)


@contextmanager
def blaming_the_database(engine: Engine) -> Iterator[None]:
    """Turns what the database's driver raises in the block into a BrokenDatabase."""
    try:
        yield
    except DatabaseError as error:
        raise broken(engine, str(error.orig), _remedy(error.orig)) from error


def broken(engine: Engine, cause: str, remedy: str = _MOVE) -> BrokenDatabase:
    """The error that names the database, without its password, and the cause on one line."""
    return BrokenDatabase("database", shown(engine), f"cannot be used ({' '.join(cause.split())})", remedy)


def shown(engine: Engine) -> str:
    """The database as messages name it, without a password."""
    if engine.dialect.name == "sqlite":
        return str(engine.url.database)
    return engine.url.render_as_string(hide_password=True)


def is_away(error: BaseException) -> bool:
    """Whether the error says that the database does not answer now: trying again later may do."""
    return isinstance(error, OperationalError | InterfaceError | PoolTimeout) or (
        isinstance(error, DBAPIError) and error.connection_invalidated
    )


def _remedy(cause: BaseException | None) -> str:
    """A database that is merely busy is sound: nobody must be told to move it away."""
    if not isinstance(cause, sqlite3.Error):
        return "see that the server runs and that the URL's user may use the database"
    if _is_busy(cause):
        return "wait for the process that holds it, or name another --home"
    return _MOVE


def _is_busy(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # the rest tells kinds of one error apart
    return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def _sqlite_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # SQLAlchemy's BEGIN is ours, not pysqlite's
    cursor = connection.cursor()
    try:
        for pragma in (f"busy_timeout={_BUSY_SECONDS * 1000}", "synchronous=NORMAL", "foreign_keys=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        _write_ahead(cursor)
    except sqlite3.Error:
        connection.close()  # the pool does not have it yet, so nobody else would
        raise
    cursor.close()


def _write_ahead(cursor: DBAPICursor) -> None:
    """Switch the file to WAL. Of several that do so to a new file at once, SQLite tells some without any wait
    that it is locked.
    """
    until = time.monotonic() + _BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if not _is_busy(error) or time.monotonic() > until:
                raise
            time.sleep(0.01)


@contextmanager
def changing_tables(engine: Engine) -> Iterator[Connection]:
    """A transaction that may make tables anew. SQLite changes a constraint only so, and would then delete all rows
    that refer to the old table: it looks at what refers to what at the end instead.
    """
    if engine.dialect.name != "sqlite":
        with engine.begin() as connection:
            yield connection
        return
    with engine.connect() as connection:
        cursor = connection.connection.cursor()  # within a transaction the pragma would do nothing
        cursor.execute("PRAGMA foreign_keys=OFF")
        try:
            with connection.begin():
                yield connection
                if lost := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
                    raise broken(engine, f"{len(lost)} of its rows refer to rows that are not there")
        finally:
            cursor.execute("PRAGMA foreign_keys=ON")
            cursor.close()


def _postgresql_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    cursor = connection.cursor()
    cursor.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_SECONDS}s'")
    cursor.close()
    connection.commit()


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
