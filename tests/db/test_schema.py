"""The schema comes from migrations alone, and agrees with the models."""

from pathlib import Path

import pytest
from sqlalchemy import text

from db.schema import VERSION_TABLE, current, drift, head, upgrade
from db.session import make_engine, prepare_home, sqlite_url
from merging.errors import Conflict, OutputError


def test_an_upgraded_database_has_exactly_the_models_tables(tmp_path: Path) -> None:
    engine = make_engine(sqlite_url(tmp_path / "x.db"))
    assert current(engine) is None
    upgrade(engine)
    assert current(engine) == head() and drift(engine) == []
    upgrade(engine)
    engine.dispose()


def test_a_neighbours_tables_are_left_alone(tmp_path: Path) -> None:
    engine = make_engine(sqlite_url(tmp_path / "x.db"))
    with engine.begin() as connection:
        connection.execute(text("create table alembic_version (version_num text)"))
        connection.execute(text("create table studies (x integer)"))
    upgrade(engine)
    assert drift(engine) == []
    engine.dispose()


def test_a_database_from_the_future_is_refused(tmp_path: Path) -> None:
    engine = make_engine(sqlite_url(tmp_path / "x.db"))
    upgrade(engine)
    with engine.begin() as connection:
        connection.execute(text(f"update {VERSION_TABLE} set version_num = '9999'"))
    with pytest.raises(Conflict, match="9999"):
        upgrade(engine)
    engine.dispose()


def test_a_home_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"home.*file/home.*--home"):
        prepare_home(tmp_path / "file" / "home")
