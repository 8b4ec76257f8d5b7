"""What tests of the database share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.records import Study
from db.session import sqlite_url
from db.store import Store
from tests.db.crew import Crew
from tests.search.factories import create, make_spec


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables, on each engine."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path / "empty.db")
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def study(any_store: Store) -> Study:
    """A running study, on each engine."""
    return create(any_store, make_spec())


@pytest.fixture(scope="session")
def crew() -> Iterator[Crew]:
    """Processes that race."""
    made = Crew()
    yield made
    made.close()
