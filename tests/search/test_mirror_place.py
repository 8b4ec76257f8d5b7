"""Where the copy lives: Optuna's tables and ours in one database, side by side, each with its own migrations."""

import subprocess
import sys
from pathlib import Path

import optuna
import psycopg
import pytest
from optuna.storages import RDBStorage

from db.neighbour import FILE, Neighbour
from db.schema import current, drift, head, upgrade
from db.session import make_engine, sqlite_url
from search.mirror import mirror_url, open_mirror, prepare_mirror


def test_a_sqlite_store_has_its_copy_in_a_file_beside_it(tmp_path: Path) -> None:
    assert mirror_url(sqlite_url(tmp_path / "mergesearch.db")) == sqlite_url(tmp_path / FILE)
    assert mirror_url(sqlite_url(tmp_path / "x" / "a.db"), tmp_path) == sqlite_url(tmp_path / FILE)


@pytest.mark.parametrize(
    ("store", "copy"),
    [
        ("postgresql+psycopg://u@h:5/d", "postgresql+psycopg://u@h:5/d?options=-csearch_path%3Doptuna"),
        ("postgresql://u@h/d?sslmode=require", "postgresql://u@h/d?options=-csearch_path%3Doptuna&sslmode=require"),
        ("postgresql://u:a%7B%40b@h/d", "postgresql://u:a%7B%40b@h/d?options=-csearch_path%3Doptuna"),
        ("postgresql://u@h/d?options=-cx%3D1", "postgresql://u@h/d?options=-cx%3D1+-csearch_path%3Doptuna"),
    ],
)
def test_a_postgresql_store_has_its_copy_in_a_schema_of_the_same_database(store: str, copy: str) -> None:
    assert mirror_url(store) == copy


def rest(storage: RDBStorage) -> None:
    storage.remove_session()
    storage.engine.dispose()


@pytest.mark.parametrize("ours_first", [True, False])
@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_neither_side_touches_the_others_tables(
    request: pytest.FixtureRequest, where: str, ours_first: bool, tmp_path: Path
) -> None:
    on_sqlite = where == "sqlite"
    url = sqlite_url(tmp_path / "our.db") if on_sqlite else request.getfixturevalue("postgres_url")
    engine = make_engine(url)
    if ours_first:
        upgrade(engine)
    prepare_mirror(mirror_url(url))
    upgrade(engine)
    prepare_mirror(mirror_url(url))
    assert drift(engine) == [] and current(engine) == head()
    storage = open_mirror(mirror_url(url))
    storage.upgrade()
    study = optuna.create_study(study_name="s", storage=storage)
    assert study.trials == [] and drift(engine) == []
    rest(storage)
    engine.dispose()


def test_optunas_tables_are_in_their_schema_alone(postgres_url: str) -> None:
    prepare_mirror(mirror_url(postgres_url))
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        schemas = connection.execute(
            "select distinct schemaname from pg_tables where tablename in ('studies', 'trials', 'alembic_version')"
        ).fetchall()
    assert schemas == [("optuna",)]


@pytest.mark.parametrize("where", ["sqlite", "postgresql"])
def test_many_processes_may_make_the_tables_at_once(request: pytest.FixtureRequest, where: str, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "our.db") if where == "sqlite" else request.getfixturevalue("postgres_url")
    code = "import sys; from search.mirror import open_mirror; open_mirror(sys.argv[1]).engine.dispose()"
    command = [sys.executable, "-c", code, mirror_url(url)]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=120)[1] for process in started]
    assert [process.returncode for process in started] == [0] * 3, said
    tables = Neighbour(mirror_url(url))
    assert tables.version() is not None
    tables.close()


def test_braces_in_a_place_are_taken_as_they_are(tmp_path: Path, postgres_url: str) -> None:
    folder = tmp_path / "{odd} 100%"
    folder.mkdir()
    rest(open_mirror(mirror_url(sqlite_url(folder / "our.db"))))
    assert (folder / FILE).exists()
    role = "create role odd login superuser password '{a}b@c/%'"
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute(role)
        try:
            with_password = postgres_url.replace("postgres@", "odd:%7Ba%7Db%40c%2F%25@")
            rest(open_mirror(mirror_url(with_password)))
        finally:
            connection.execute("reassign owned by odd to postgres")
            connection.execute("drop owned by odd")
            connection.execute("drop role odd")


def test_a_user_who_may_make_no_schema_can_use_the_one_there_is(postgres_url: str) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        connection.execute("create role small login")
        connection.execute("create schema optuna authorization small")
        try:
            rest(open_mirror(mirror_url(postgres_url.replace("postgres@", "small@"))))
        finally:
            connection.execute("drop owned by small")
            connection.execute("drop role small")
