"""The schema, by migration only. `upgrade` brings a database to the code's version, from nothing too."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Engine
from sqlalchemy.engine import Connection

from db.models import Base
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
    """The version the database is at; None if it holds no schema of ours."""
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        return context.get_current_revision()


def upgrade(engine: Engine) -> None:
    """Bring the database to the code's version.

    Raises:
        Conflict: the database is newer than the code.
    """
    found, known = current(engine), ScriptDirectory.from_config(_config())
    if found == known.get_current_head():
        return
    if found is not None and found not in {s.revision for s in known.walk_revisions()}:
        raise Conflict(f"the database is at version {found}, which this mergesearch does not know; install a newer one")
    with engine.begin() as connection:
        command.upgrade(_config(connection), "head")


def drift(engine: Engine) -> list[Any]:
    """What the tables lack or have too much, compared with the models; empty when they agree."""
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "include_name": only_ours}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), Base.metadata))
