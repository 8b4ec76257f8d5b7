"""The dashboard's copy: as many trials as ours, of this very study, and never in the way of the search."""

from pathlib import Path

import optuna
import pytest

from db.store import Store, open_home
from search.controller import Controller
from search.dispatch import InlineDispatcher
from search.mirror import FILE, Mirror
from search.study import StudySpec
from tests.search.factories import make_spec
from tests.search.test_strategies import by_bowl, search


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "locks").mkdir()
    return tmp_path


def searched(home: Path, store: Store, spec: StudySpec, warnings: list[str]) -> Mirror:
    """Run a study and copy it; the mirror that did."""
    found = search(spec, store)
    Controller(found, store, InlineDispatcher(store, by_bowl)).run()
    mirror = Mirror(home, found.study, found.space, store, warnings.append)
    mirror.sync(store.trials.all(found.study.id))
    return mirror


def copied(home: Path) -> list[float | None]:
    study = optuna.load_study(study_name="test", storage=f"sqlite:///{home / FILE}")
    return [t.value for t in study.trials]


def test_the_copy_has_our_trials_and_grows_with_them(home: Path, store: Store) -> None:
    warnings: list[str] = []
    searched(home, store, make_spec(search={"trials": 6}), warnings)
    ours = [t.value for t in store.trials.all(1)]
    assert copied(home) == ours and len(ours) == 6
    searched(home, store, make_spec(search={"trials": 9}), warnings)
    assert copied(home) == [t.value for t in store.trials.all(1)] and len(copied(home)) == 9
    assert not warnings


def test_a_strangers_copy_of_that_name_is_replaced(home: Path, tmp_path: Path) -> None:
    warnings: list[str] = []
    first = open_home(tmp_path / "first")
    searched(home, first, make_spec(search={"trials": 8}), warnings)
    second = open_home(tmp_path / "second")
    other = make_spec(search={"trials": 7, "seed": 8}, space={"methods": ["ties", "task_arithmetic"]})
    searched(home, second, other, warnings)
    assert copied(home) == [t.value for t in second.trials.all(1)] and not warnings


def test_a_copy_that_cannot_be_written_is_a_warning(home: Path, store: Store) -> None:
    (home / FILE).write_bytes(b"this is no database, whatever its name says" * 100)
    warnings: list[str] = []
    mirror = searched(home, store, make_spec(search={"trials": 6}), warnings)
    mirror.sync(store.trials.all(1))
    assert len(warnings) == 1 and "dashboard" in warnings[0], "said once, not with every trial"
    (home / FILE).unlink()
    mirror.sync(store.trials.all(1))
    assert copied(home) == [t.value for t in store.trials.all(1)]
