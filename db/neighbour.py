"""Optuna's tables, which live beside ours: where they are, who may make them, and rows written in bulk.

Optuna's own way in costs a query or two a parameter (`Study.add_trial`); the rows of many trials go in here with
one statement a table. What the rows mean (states, distributions) is the search's business: this file
only knows the tables, as it finds them in the database.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import MetaData, Table, delete, func, insert, inspect, select, text
from sqlalchemy.engine import Connection, make_url

from db.session import make_engine, reader, sqlite_url

FILE = "optuna.db"
SCHEMA = "optuna"
_LOCK = int.from_bytes(b"msoptuna", "big")  # of PostgreSQL's advisory locks
_TABLES = (
    *("studies", "study_system_attributes", "trials", "trial_values", "trial_params", "trial_intermediate_values"),
    *("trial_user_attributes", "trial_system_attributes"),
)


@dataclass(frozen=True)
class TrialCopy:
    """One ended trial as Optuna's tables hold it.

    Attributes:
        started, completed: UTC without a time zone.
        values: finite, one for each of the study's directions; none where the trial has none.
        params: name, Optuna's inner number, and the distribution's JSON.
        attributes: user attributes, their values as JSON.
        system: Optuna's own attributes, their values as JSON.
        intermediate: finite, by step.
    """

    number: int
    state: str
    values: tuple[float, ...]
    started: datetime
    completed: datetime
    params: tuple[tuple[str, float, str], ...]
    attributes: Mapping[str, str]
    system: Mapping[str, str] = field(default_factory=dict)
    intermediate: Mapping[int, float] = field(default_factory=dict)


def neighbour_url(store_url: str, home: Path | None = None) -> str:
    """The URL of Optuna's tables for our database: a file beside a SQLite file, a schema in PostgreSQL's database.

    Args:
        home: the folder of the SQLite file, if not the one of our database.
    """
    url = make_url(store_url)
    if url.get_backend_name() == "sqlite":
        return sqlite_url((home or Path(url.database or "").parent) / FILE)
    given = url.query.get("options", ())
    options = " ".join((*((given,) if isinstance(given, str) else given), f"-csearch_path={SCHEMA}"))
    return url.update_query_dict({"options": options}).render_as_string(hide_password=False)


@contextmanager
def alone(url: str) -> Iterator[None]:
    """Only one process is in this block at a time: several that make Optuna's tables at once crash."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "sqlite":
        locks = Path(parsed.database or "").parent / "locks"
        locks.mkdir(exist_ok=True)
        with FileLock(locks / "optuna.lock"):
            yield
        return
    engine = make_engine(url)
    try:
        # no transaction is left open meanwhile: the server ends those that idle
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(select(func.pg_advisory_lock(_LOCK)))
            try:
                yield
            finally:
                connection.execute(select(func.pg_advisory_unlock(_LOCK)))
    finally:
        engine.dispose()


def make_schema(url: str) -> None:
    """Make the schema for Optuna's tables, if need be; SQLite has none."""
    engine = make_engine(url)
    try:
        # looked for first: without the right to make one, `if not exists` fails although it exists
        if engine.dialect.name != "sqlite" and not inspect(engine).has_schema(SCHEMA):
            with engine.begin() as connection:
                connection.execute(text(f"create schema if not exists {SCHEMA}"))
    finally:
        engine.dispose()


class Neighbour:
    """Optuna's tables at that URL."""

    def __init__(self, url: str) -> None:
        self._engine = make_engine(url)
        self._found: dict[str, Table] = {}

    def version(self) -> str | None:
        """The version of Optuna's tables; None where they are not there, or not made to the end."""
        with reader(self._engine).connect() as connection:
            if not inspect(connection).has_table("alembic_version"):
                return None
            version: str | None = connection.scalar(text("select version_num from alembic_version"))
            return version

    def count(self, study_id: int) -> int:
        """How many trials the study has there."""
        with reader(self._engine).connect() as connection:
            return self._count(connection, study_id)

    def append(self, study_id: int, trials: Sequence[TrialCopy]) -> bool:
        """Add trials with consecutive numbers; False, and none added, if they would not follow the last one there.

        Raises:
            LookupError: the study is not there.
        """
        with self._engine.begin() as connection:
            studies = self._table(connection, "studies")
            mine = select(studies.c.study_id).where(studies.c.study_id == study_id).with_for_update()
            if connection.scalar(mine) is None:
                raise LookupError(f"study {study_id} is gone")
            if self._count(connection, study_id) != trials[0].number:
                return False
            self._insert(connection, study_id, trials)
            return True

    def put(self, study_id: int, prefix: str, attributes: Mapping[str, str]) -> None:
        """Replace the study's system attributes whose keys begin with the prefix.

        Args:
            attributes: their values as JSON.
        """
        with self._engine.begin() as connection:
            table = self._table(connection, "study_system_attributes")
            old = (table.c.study_id == study_id, table.c.key.startswith(prefix, autoescape=True))
            connection.execute(delete(table).where(*old))
            rows = [{"study_id": study_id, "key": k, "value_json": v} for k, v in attributes.items()]
            connection.execute(insert(table), rows)

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()

    def _insert(self, connection: Connection, study_id: int, trials: Sequence[TrialCopy]) -> None:
        table = self._table(connection, "trials")
        heads = [
            {
                "study_id": study_id,
                "number": t.number,
                "state": t.state,
                "datetime_start": t.started,
                "datetime_complete": t.completed,
            }
            for t in trials
        ]
        connection.execute(insert(table), heads)
        new = (table.c.study_id == study_id, table.c.number >= trials[0].number)
        ids = connection.scalars(select(table.c.trial_id).where(*new).order_by(table.c.number)).all()
        rows: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for id_, trial in zip(ids, trials, strict=True):
            for name, content in _details(trial).items():
                rows[name] += [{"trial_id": id_} | row for row in content]
        for name, content in rows.items():
            if content:
                connection.execute(insert(self._table(connection, name)), content)

    def _count(self, connection: Connection, study_id: int) -> int:
        trials = self._table(connection, "trials")
        query = select(func.count()).select_from(trials).where(trials.c.study_id == study_id)
        return connection.scalar(query) or 0

    def _table(self, connection: Connection, name: str) -> Table:
        """The table as the database has it, so that its types (PostgreSQL's enums) are right."""
        if not self._found:
            metadata = MetaData()
            metadata.reflect(connection, only=_TABLES)
            self._found = dict(metadata.tables)
        return self._found[name]


def _details(trial: TrialCopy) -> dict[str, list[dict[str, Any]]]:
    """What the other tables say of a trial, by table, without the trial's id."""
    return {
        "trial_values": [
            {"objective": i, "value": value, "value_type": "FINITE"} for i, value in enumerate(trial.values)
        ],
        "trial_params": [
            {"param_name": name, "param_value": value, "distribution_json": distribution}
            for name, value, distribution in trial.params
        ],
        "trial_intermediate_values": [
            {"step": step, "intermediate_value": value, "intermediate_value_type": "FINITE"}
            for step, value in trial.intermediate.items()
        ],
        "trial_user_attributes": [{"key": key, "value_json": value} for key, value in trial.attributes.items()],
        "trial_system_attributes": [{"key": key, "value_json": value} for key, value in trial.system.items()],
    }
