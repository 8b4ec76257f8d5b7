"""The health check of containers: whether a process of this machine was heard of."""

import socket
from pathlib import Path

import pytest
from sqlalchemy import text

from api.service.alive import SECONDS, main
from db.session import make_engine
from db.store import Store


@pytest.fixture
def database(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A service's database, named in the environment."""
    monkeypatch.setenv("MERGESEARCH_DATABASE_URL", any_store.url)
    return any_store


def change(store: Store, statement: str) -> None:
    """Change rows behind the store's back."""
    engine = make_engine(store.url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


def test_a_process_that_beats_is_alive_in_its_role_alone(database: Store) -> None:
    assert main("worker") == f"no worker of {socket.gethostname()} was heard of in the last 60 s"
    database.processes.beat("w1", "worker", {})
    assert main("worker") is None
    assert main("controller") is not None


def test_one_that_is_silent_too_long_is_not(database: Store) -> None:
    database.processes.beat("w1", "worker", {})
    change(database, f"UPDATE process SET seen_at = seen_at - {SECONDS + 1}")
    assert main("worker") is not None


def test_another_machines_does_not_count(database: Store) -> None:
    database.processes.beat("w1", "worker", {})
    change(database, "UPDATE process SET host = 'elsewhere'")
    assert main("worker") is not None


def test_a_database_that_is_away_is_told_in_a_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MERGESEARCH_DATABASE_URL", "postgresql+psycopg://nobody@127.0.0.1:1/nothing")
    assert main("worker") == "the database does not answer"


def test_a_missing_url_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MERGESEARCH_DATABASE_URL", raising=False)
    said = main("worker")
    assert said is not None and "postgresql+psycopg://" in said
