"""The service around the workers under test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from db.records import Study
from db.store import Store, open_store
from tests.search.factories import create, make_spec
from tests.workers.service import Service
from workers.dispatcher import CeleryDispatcher


@pytest.fixture
def service(postgres_url: str, redis_url: str, tmp_path: Path) -> Iterator[Service]:
    """On the servers that tests share."""
    store = open_store(postgres_url)
    dispatcher = CeleryDispatcher(redis_url, again_seconds=0.5)
    yield Service(store, redis_url, dispatcher, tmp_path)
    dispatcher.close()
    store.close()


@pytest.fixture
def study(service: Service) -> Study:
    """A running study of that service."""
    return make_study(service.store)


def make_study(store: Store, name: str = "test") -> Study:
    """A running study of two experts."""
    return create(store, make_spec(name=name, models={"base": "base", "experts": ["experts/a", "experts/b"]}))
