"""What tests share: offline libraries, a zoo trained once a session, stores on real files."""

import os
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import text

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from db.models import Base
from db.session import make_engine, prepare_home, sqlite_url
from db.store import FILE, Store, connect_store, open_home, open_store
from tests.services import Postgres, Redis
from zoo.make import Zoo, build


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of one test session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if os.environ.get("PYTEST_XDIST_WORKER") else own


@pytest.fixture(scope="session")
def nano(shared_folder: Path) -> Zoo:
    """The smallest zoo: real models, trained in seconds, of little skill."""
    return build(shared_folder / "zoo-nano", preset="nano")


@pytest.fixture
def store(migrated_file: Path, tmp_path: Path) -> Iterator[Store]:
    """An empty store on a real SQLite file."""
    shutil.copy(migrated_file, prepare_home(tmp_path / "home") / FILE)
    with closing(open_home(tmp_path / "home")) as opened:
        yield opened


@pytest.fixture(scope="session")
def migrated(postgres_server: Postgres) -> str:
    """The URL of a PostgreSQL database with our tables, to be emptied and used again: making one takes its time."""
    url = postgres_server.database()
    open_store(url).close()
    return url


@pytest.fixture(scope="session")
def migrated_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with our tables, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "any.db"
    open_store(sqlite_url(path)).close()
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty store, once on SQLite and once on PostgreSQL. Its tables are to be left as they are."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("migrated_file"), tmp_path / "any.db")
        return sqlite_url(tmp_path / "any.db")
    url: str = request.getfixturevalue("migrated")
    empty(url)
    return url


def empty(url: str) -> None:
    """Remove all rows of a PostgreSQL database, and let its numbers begin again."""
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(text("set lock_timeout = '20s'"))
        connection.execute(text("drop schema if exists optuna cascade"))
        for table in reversed(Base.metadata.sorted_tables):
            if table.name != "counter":
                connection.execute(table.delete())
        connection.execute(text("update counter set value = 0"))
        for (sequence,) in connection.execute(text("select sequencename from pg_sequences")).all():
            connection.execute(text(f"select setval('{sequence}', 1, false)"))
    engine.dispose()


@pytest.fixture
def any_store(store_url: str) -> Iterator[Store]:
    """An empty store, on each engine."""
    with closing(connect_store(store_url)) as store:
        yield store


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server that all tests of a process share; none may stop it."""
    with Postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """The URL of an empty PostgreSQL database that nobody else uses."""
    url = postgres_server.database()
    yield url
    postgres_server.drop(url)


@pytest.fixture
def own_postgres() -> Iterator[Postgres]:
    """A PostgreSQL server for one test, which may do with it what it likes."""
    with Postgres() as server:
        yield server


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A Redis server that all tests of a process share; none may stop it."""
    with Redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """The URL of an empty Redis that nobody else uses meanwhile."""
    with redis_server.client() as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
def own_redis() -> Iterator[Redis]:
    """A Redis server for one test, which may do with it what it likes."""
    with Redis() as server:
        yield server
