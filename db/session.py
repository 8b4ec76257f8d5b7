"""Engines and sessions. SQLite runs in WAL with BEGIN IMMEDIATE: its defaults lose concurrent updates."""

from pathlib import Path

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.engine import Connection
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from merging.errors import OutputError


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


def _sqlite_connect(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # SQLAlchemy's BEGIN is ours, not pysqlite's
    cursor = connection.cursor()
    for pragma in ("busy_timeout=30000", "journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _sqlite_begin(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


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
