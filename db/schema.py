"""The schema, by migration only. `upgrade` brings a database to the code's version, from nothing too."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, func, inspect, select
from sqlalchemy.engine import Connection

from db.models import Base
from db.session import blaming_the_database, broken, changing_tables, reader, shown
from merging.errors import Conflict

# Optuna keeps an `alembic_version` of its own; sharing the name breaks both.
VERSION_TABLE = "mergesearch_version"
_LOCK = 0x6D657267  # of PostgreSQL's advisory locks; "merg"


def only_ours(name: str | None, type_: str, parent: Any) -> bool:
    """Whether autogenerate may look at this object: our tables only, never a neighbour's."""
    return type_ != "table" or name in Base.metadata.tables


def _config(connection: Connection | None = None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    return config


def head() -> str | None:
    """The newest version the code knows."""
    return ScriptDirectory.from_config(_config()).get_current_head()


def current(engine: Engine) -> str | None:
    """The version the database is at, from which the code can go on; None if it holds nothing of ours.

    Raises:
        Conflict: the database is newer than the code.
        BrokenDatabase: it cannot be read, or tables of somebody else's have the names of ours.
    """
    with blaming_the_database(engine), reader(engine).connect() as connection:
        found = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE}).get_current_revision()
        taken = set(inspect(connection).get_table_names()) & set(Base.metadata.tables)
    if found is None and taken:
        raise broken(engine, f"its tables {', '.join(sorted(taken))} are not mergesearch's")
    if found is not None and found not in {s.revision for s in ScriptDirectory.from_config(_config()).walk_revisions()}:
        raise Conflict(f"the database is at version {found}, which this mergesearch does not know; install a newer one")
    return found


class SchemaBehind(Conflict):
    """The database is older than the code."""


def require_head(engine: Engine) -> None:
    """See that the database is at the code's version.

    Raises:
        SchemaBehind: it is older, or empty.
        Conflict, BrokenDatabase: as `current`.
    """
    found = current(engine)
    if found != head():
        raise SchemaBehind(
            f"the database {shown(engine)} is at version {found or 'none'} and the code at {head()}; "
            "run `mergesearch migrate` first"
        )


def upgrade(engine: Engine) -> None:
    """Bring the database to the code's version. Several processes may do so at once.

    Raises:
        Conflict, BrokenDatabase: as `current`.
    """
    if current(engine) != head():
        with blaming_the_database(engine), changing_tables(engine) as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
            command.upgrade(_config(connection), "head")


def drift(engine: Engine) -> list[Any]:
    """What the tables lack or have too much, compared with the models; empty when they agree."""
    with reader(engine).connect() as connection:
        options = {"version_table": VERSION_TABLE, "include_name": only_ours}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata))
