"""Artefacts of each test in a folder of its own; experts of the tiny model, and a suite for it."""

import shutil
from pathlib import Path

import pytest

from evaluation.suite import Suite
from merging.artefacts.place import VARIABLE
from tests.evaluation.artefacts.shop import EXPERTS, SUITE_TASKS, write_expert
from tests.evaluation.conftest import KEY, Tiny


@pytest.fixture(autouse=True)
def artefacts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where artefacts lie."""
    folder = tmp_path / "artefacts"
    monkeypatch.setenv(VARIABLE, str(folder))
    return folder


@pytest.fixture(scope="session")
def models(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the base and its experts."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(tiny.model, root / "base")
    for seed, name in enumerate(EXPERTS):
        write_expert(root / "base", root / name, seed)
    return root


@pytest.fixture(scope="session")
def suite(tiny: Tiny) -> Suite:
    """Two tasks of 12 documents each."""
    return Suite.load(tiny.spec(*SUITE_TASKS, documents=12), tiny.root, KEY)
