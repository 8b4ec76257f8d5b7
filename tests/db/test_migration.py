"""An old database is brought up to date in place with all that it holds, by as many processes as like to."""

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
from sqlalchemy import Engine, inspect

from db.models import Base
from db.records import DocumentSet
from db.schema import VERSION_TABLE, SchemaBehind, current, drift, head, upgrade
from db.session import make_engine
from db.store import Store, connect_store, open_store
from evaluation.result import Failed
from tests.db.crew import Crew, each_of
from tests.db.old import dump, make_old
from tests.db.rows import claimed, recipe, taken
from tests.search.factories import make_spec, scored


@pytest.fixture(params=["0001", "0002", "0003"])
def old(empty_url: str, request: pytest.FixtureRequest) -> Iterator[Engine]:
    """A database of each earlier release."""
    engine = make_engine(empty_url)
    make_old(engine, request.param)
    yield engine
    engine.dispose()


FIRST = {"document_set": 4, "evaluation": 4, "merge_study": 2, "merge_trial": 4, "model_fingerprint": 1, "score": 1}


def contents(engine: Engine, columns: dict[str, list[str]]) -> dict[str, Any]:
    """All rows, in those columns."""
    return {table: dump(engine, table, names) for table, names in columns.items()}


def shape(engine: Engine) -> dict[str, Any]:
    """Everything that a database has, table by table, without the order in which it was made."""
    found = inspect(engine)
    return {
        table: {
            "columns": sorted((c["name"], str(c["type"]), c["nullable"]) for c in found.get_columns(table)),
            "key": found.get_pk_constraint(table)["constrained_columns"],
            "unique": sorted((u["name"], u["column_names"]) for u in found.get_unique_constraints(table)),
            "indexes": sorted((i["name"], i["column_names"], i["unique"]) for i in found.get_indexes(table)),
            "foreign": sorted((str(f["name"]), f["constrained_columns"]) for f in found.get_foreign_keys(table)),
        }
        for table in found.get_table_names()
    }


def test_no_row_is_lost_or_changed(old: Engine) -> None:
    columns = {t: [c["name"] for c in inspect(old).get_columns(t)] for t in sorted(Base.metadata.tables) if
               inspect(old).has_table(t)}  # fmt: skip
    before = contents(old, columns)
    assert {table: len(rows) for table, rows in before.items() if rows} in (FIRST, FIRST | {"counter": 3, "job": 1})
    upgrade(old)
    assert contents(old, columns) == before
    assert current(old) == head() and drift(old) == []


def test_migrated_equals_what_the_models_make(old: Engine) -> None:
    upgrade(old)
    migrated = shape(old)
    del migrated[VERSION_TABLE]
    Base.metadata.drop_all(old)
    Base.metadata.create_all(old)
    assert {table: content for table, content in shape(old).items() if table != VERSION_TABLE} == migrated


def test_what_was_there_is_read_and_gone_on_with(old: Engine) -> None:
    with closing(open_store(old.url.render_as_string(hide_password=False))) as store:
        done, killed = store.studies.all()
        assert (done.name, done.state, done.verdict, done.phase, done.created_at) == (
            "done", "finished", {"winner": 1}, None, 1.5,
        )  # fmt: skip
        assert killed.state == "running" and killed.frozen_digest == make_spec().frozen_digest()
        assert store.studies.documents(1)[("t", "search")] == DocumentSet.whole(range(8))
        first, second = store.trials.all(1)
        assert (first.state, first.why, first.params) == ("failed", "no memory", {"x": 0.25})
        assert store.trials.best(1) == second and store.studies.counts(2) == {"open": 2}
        assert store.evaluations.get(1).outcome == scored(0.5) and store.evaluations.get(1).recipe == recipe()
        assert store.evaluations.get(2).outcome == Failed(why="no memory")
        assert (second.rung, second.steps, second.estimate, second.constraints) == (0, (), None, None)
        assert store.events.last(1) == 0
        _go_on(store)


def _go_on(store: Store) -> None:
    """The killed study: its lease expires, and its trials are scored and told; a new one begins."""
    assert store.leads.vacant() == (2,) and store.evaluations.queued() == ((4, "default"),)
    lead = taken(store, store.studies.by_id(2))
    assert store.evaluations.sweep() == (3,)
    for id_ in (3, 4):
        assert store.evaluations.get(id_).rung == 0
        assert store.evaluations.finish(claimed(store, id_), scored(1.0))
    for trial in store.trials.ready(2):
        store.trials.tell(lead, trial.number, "complete", 1.0)
    assert [t.told_order for t in store.trials.all(2)] == [1, 2]
    assert [e.kind for e in store.events.after(2, 0)] == ["trial.retried", "trial.told", "trial.told"]
    counts = store.metrics.read()
    assert counts.counters["lease_expiries"] == 1 and counts.scored == 3
    assert store.studies.create("new", {}, "f", {}, {}).id == 3


def upgrade_there(url: str, number: int) -> str | None:
    """Bring the database up to date, together with others."""
    with closing(open_store(url)) as store:
        store.check()
        return current(store.studies._writer)


@pytest.mark.parametrize("filled", [True, False], ids=["old", "empty"])
def test_many_processes_migrate_at_once(empty_url: str, crew: Crew, filled: bool) -> None:
    engine = make_engine(empty_url)
    if filled:
        make_old(engine)
    assert crew.race_at(empty_url, upgrade_there, each_of()) == [head()] * 4
    assert drift(engine) == []
    engine.dispose()


def test_a_services_process_changes_no_schema(old: Engine) -> None:
    url = old.url.render_as_string(hide_password=False)
    before = current(old)
    with pytest.raises(SchemaBehind, match=rf"version {before} and the code at \d+; run `mergesearch migrate` first"):
        connect_store(url)
    assert current(old) == before != head()
    upgrade(old)
    connect_store(url).close()


def test_a_services_process_makes_no_schema(empty_url: str) -> None:
    with pytest.raises(SchemaBehind, match=r"version none and .*`mergesearch migrate`"):
        connect_store(empty_url)
    engine = make_engine(empty_url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()
