"""The schema comes from migrations alone, agrees with the models, and leaves its neighbours in peace."""

from contextlib import closing
from pathlib import Path

import optuna
import pytest
from sqlalchemy import inspect, text

from db.schema import VERSION_TABLE, current, drift, head, upgrade
from db.session import BrokenDatabase, make_engine, prepare_home
from db.store import connect_store, open_store
from merging.errors import Conflict, OutputError
from search.mirror.place import mirror_url, open_mirror, prepare_mirror


def test_an_upgraded_database_has_exactly_the_models_tables(empty_url: str) -> None:
    engine = make_engine(empty_url)
    assert current(engine) is None
    upgrade(engine)
    assert current(engine) == head() and drift(engine) == []
    upgrade(engine)
    engine.dispose()


def test_a_neighbours_tables_are_left_alone(empty_url: str) -> None:
    engine = make_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("create table alembic_version (version_num text)"))
        connection.execute(text("create table studies (x integer)"))
    upgrade(engine)
    assert drift(engine) == []
    assert inspect(engine).has_table("studies")
    engine.dispose()


def test_optunas_tables_are_no_drift_and_outlive_a_migration(empty_url: str) -> None:
    beside = mirror_url(empty_url)
    prepare_mirror(beside)
    engine = make_engine(empty_url)
    assert current(engine) is None, "Optuna's tables are not ours"
    upgrade(engine)
    storage = open_mirror(beside)
    optuna.create_study(storage=storage, study_name="kept")
    assert current(engine) == head() and drift(engine) == []
    upgrade(engine)
    assert optuna.load_study(storage=storage, study_name="kept").trials == []
    storage.engine.dispose()
    engine.dispose()


def test_a_table_that_is_not_as_the_models_say_is_drift(empty_url: str) -> None:
    engine = make_engine(empty_url)
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text("alter table job add column more integer"))
        connection.execute(text("drop index ix_evaluation_state_expires_at"))
    assert len(drift(engine)) == 2
    engine.dispose()


def test_a_database_from_the_future_is_refused(empty_url: str) -> None:
    store = open_store(empty_url)
    engine = make_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text(f"update {VERSION_TABLE} set version_num = '9999'"))
    for opening in (open_store, connect_store):
        with pytest.raises(Conflict, match=r"version 9999.*install a newer one"):
            opening(empty_url)
    with pytest.raises(Conflict, match="9999"):
        store.check()
    store.close()
    engine.dispose()


def test_tables_of_somebody_elses_are_not_taken_for_ours(empty_url: str) -> None:
    engine = make_engine(empty_url)
    with engine.begin() as connection:
        connection.execute(text("create table score (x integer)"))
    for opening in (open_store, connect_store):
        with pytest.raises(BrokenDatabase, match="its tables score are not mergesearch's"):
            opening(empty_url)
    engine.dispose()


def test_a_database_that_is_not_there_is_named_without_its_password() -> None:
    url = "postgresql+psycopg://me:secret@127.0.0.1:9/db"
    with pytest.raises(BrokenDatabase, match=r"127\.0\.0\.1:9/db.*see that the server runs") as told:
        connect_store(url)
    assert "secret" not in str(told.value)
    with pytest.raises(BrokenDatabase, match="write postgresql"), closing(open_store("oracle-of://x")):
        pass


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"home.*file/home.*--home"):
        prepare_home(tmp_path / "file" / "home")
