"""The schema, by migration only. `upgrade` brings a database to the code's version, from nothing too."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine, inspect
from sqlalchemy.engine import Connection

from db.models import Base
from db.session import blaming_the_database, broken, reader
from merging.errors import Conflict

# Optuna keeps an `alembic_version` of its own; sharing the name breaks both.
VERSION_TABLE = "mergesearch_version"


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


def upgrade(engine: Engine) -> None:
    """Bring the database to the code's version.

    Raises:
        Conflict, BrokenDatabase: as `current`.
    """
    if current(engine) != head():
        with blaming_the_database(engine), engine.begin() as connection:
            command.upgrade(_config(connection), "head")


def drift(engine: Engine) -> list[Any]:
    """What the tables lack or have too much, compared with the models; empty when they agree."""
    with reader(engine).connect() as connection:
        options = {"version_table": VERSION_TABLE, "include_name": only_ours}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata))
