"""One nano zoo for all of these tests."""

from pathlib import Path

import pytest

import zoo


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> zoo.Zoo:
    """A finished nano zoo; tests must not change it."""
    folder: Path = tmp_path_factory.mktemp("zoo") / "nano"
    return zoo.build(folder, "nano")
