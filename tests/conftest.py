"""What tests share: offline libraries, a zoo trained once a session, stores on real files."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_DATASETS_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from db.store import Store, open_home
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
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store on a real SQLite file."""
    opened = open_home(tmp_path / "home")
    yield opened
    opened.close()
