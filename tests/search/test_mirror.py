"""The dashboard's copy: as many trials as ours, of this very study, read by stock Optuna, never in the search's way."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState

import search.mirror.copy as bulk
from db.neighbour import FILE, Neighbour
from db.store import Store, open_home, open_store
from search.mirror import Mirror, mirror_url
from search.study import StudySpec
from tests.search.factories import make_spec
from tests.search.mirrored import Filled
from tests.services import Postgres

Make = Callable[[Filled], Mirror]


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def mirror_of(warnings: list[str]) -> Iterator[Make]:
    """Makes mirrors, and closes them in the end."""
    made: list[Mirror] = []

    def make(filled: Filled) -> Mirror:
        url = mirror_url(filled.store.url)
        made.append(Mirror(url, filled.study, filled.space, filled.store, warnings.append))
        return made[-1]

    yield make
    for mirror in made:
        mirror.close()


@contextmanager
def stock(store: Store) -> Iterator[optuna.Study]:
    """The copy as anybody opens it."""
    storage = RDBStorage(mirror_url(store.url))
    try:
        yield optuna.load_study(study_name="test", storage=storage)
    finally:
        storage.remove_session()
        storage.engine.dispose()


def copied(store: Store) -> list[tuple[int, float | None]]:
    with stock(store) as study:
        return [(t.number, t.value) for t in study.get_trials(deepcopy=False)]


def delete(store: Store) -> None:
    with stock(store) as study:
        optuna.delete_study(study_name="test", storage=study._storage)


def mixed() -> StudySpec:
    """Conditional parameters, choices, floats."""
    return make_spec(space={"methods": ["task_arithmetic", "ties"], "layers": 2})


def test_the_copy_has_our_trials_and_grows_with_them(any_store: Store, mirror_of: Make, warnings: list[str]) -> None:
    filled = Filled(any_store, mixed())
    mirror = mirror_of(filled)
    assert mirror.sync() == 0 and copied(any_store) == []
    filled.fill(9)
    assert mirror.sync() == 9 and mirror.sync() == 0
    filled.fill(1)
    assert mirror.sync() == 1
    another = mirror_of(filled)  # after a restart
    filled.fill(300)
    assert another.sync() == 300 and mirror.sync() == 0
    filled.fill(2)
    assert mirror.sync() == 2
    assert copied(any_store) == list(filled.ours()) and len(copied(any_store)) == 312
    assert not warnings


def test_trials_appear_once_told_in_the_order_of_their_numbers(store: Store, mirror_of: Make) -> None:
    filled = Filled(store, make_spec())
    mirror = mirror_of(filled)
    first, second, third = filled.add(3)
    filled.tell(second, 0.5)
    assert mirror.sync() == 0
    filled.tell(first, 0.4)
    assert mirror.sync() == 2
    filled.tell(third, None)
    assert mirror.sync() == 1 and copied(store) == [(0, 0.4), (1, 0.5), (2, None)]


def test_rows_written_in_bulk_are_what_optuna_itself_would_have_written(
    any_store: Store, mirror_of: Make, monkeypatch: pytest.MonkeyPatch, warnings: list[str]
) -> None:
    filled = Filled(any_store, mixed())
    filled.fill(20)
    filled.without_recipe()
    assert mirror_of(filled).sync() == 21
    with stock(any_store) as quick:
        best, trials = in_full(quick.best_trial), [in_full(t) for t in quick.trials]
    delete(any_store)
    monkeypatch.setattr(bulk, "WRITTEN_FOR", "a version of tables that is not there")
    assert mirror_of(filled).sync() == 21 and not warnings
    with stock(any_store) as slow:
        assert trials == [in_full(t) for t in slow.trials]
        assert best == in_full(slow.best_trial)


def in_full(trial: FrozenTrial) -> dict[str, object]:
    """Everything of a trial but its row's id."""
    return {k: v for k, v in vars(trial).items() if k != "_trial_id"}


def test_a_trial_says_where_it_came_from_and_what_it_reached(store: Store, mirror_of: Make) -> None:
    filled = Filled(store, mixed())
    filled.fill(10)
    without = filled.without_recipe()
    mirror_of(filled).sync()
    with stock(store) as study:
        trials, ours = study.trials, store.trials.all(filled.study.id)
    assert [t.user_attrs["origin"] for t in trials] == [t.origin for t in ours]
    assert trials[3].user_attrs["score:t"] == trials[3].value
    assert trials[3].user_attrs["api"] == "/v1/studies/test/trials/3"
    assert trials[8].params == ours[8].params
    assert trials[8].datetime_start == datetime.fromtimestamp(ours[8].created_at)
    assert trials[8].datetime_complete == datetime.fromtimestamp(ours[8].told_at or 0.0)
    assert trials[6].state == TrialState.FAIL and trials[6].user_attrs["why"] == "not finite"
    assert trials[without].state == TrialState.FAIL and trials[without].user_attrs["state"] == "infeasible"


def test_recipes_outside_the_space_are_trials_without_parameters(store: Store, mirror_of: Make) -> None:
    filled = Filled(store, make_spec(search={"strategy": "greedy_soup"}, space={"methods": ["ties"]}))
    filled.fill(4)
    mirror_of(filled).sync()
    with stock(store) as study:
        assert [t.params for t in study.trials[:3]] == [{}] * 3
        assert study.trials[1].state == TrialState.COMPLETE


def test_a_strangers_copy_of_that_name_is_replaced(
    store: Store, tmp_path: Path, mirror_of: Make, warnings: list[str]
) -> None:
    first = Filled(store, make_spec())
    first.fill(8)
    mirror_of(first).sync()
    other = open_home(tmp_path / "other")
    second = Filled(other, make_spec(search={"seed": 8}, space={"methods": ["ties", "task_arithmetic"]}), seed=1)
    second.fill(7)
    shutil.copy(tmp_path / "home" / FILE, tmp_path / "other" / FILE)
    mirror_of(second).sync()
    assert copied(other) == list(second.ours()) and not warnings
    other.close()


def test_a_copy_that_is_ahead_of_its_study_is_made_anew(
    store: Store, tmp_path: Path, mirror_of: Make, warnings: list[str]
) -> None:
    filled = Filled(store, make_spec())
    filled.fill(5)
    shutil.copytree(tmp_path / "home", tmp_path / "backup")
    filled.fill(3)
    mirror_of(filled).sync()
    shutil.copy(tmp_path / "home" / FILE, tmp_path / "backup" / FILE)
    earlier = open_home(tmp_path / "backup")
    mirror = Mirror(mirror_url(earlier.url), filled.study, filled.space, earlier, warnings.append)
    assert mirror.sync() == 5 and len(copied(earlier)) == 5 and not warnings
    mirror.close()
    earlier.close()


def test_a_copy_that_lost_trials_gets_them_again(store: Store, mirror_of: Make, warnings: list[str]) -> None:
    filled = Filled(store, make_spec())
    filled.fill(8)
    mirror = mirror_of(filled)
    mirror.sync()
    delete(store)
    filled.fill(1)
    assert mirror.sync() == 0 and "gone" in warnings[0]
    assert mirror.sync() == 9 and copied(store) == list(filled.ours())


def test_two_writers_write_no_trial_twice(any_store: Store, mirror_of: Make, warnings: list[str]) -> None:
    filled = Filled(any_store, make_spec())
    one, two = mirror_of(filled), mirror_of(filled)
    for _ in range(4):
        filled.fill(3)
        one.sync(), two.sync()
        filled.fill(2)
        two.sync(), one.sync()
    assert copied(any_store) == list(filled.ours()) and len(copied(any_store)) == 20 and not warnings


def test_a_copy_that_cannot_be_written_is_a_warning(store: Store, mirror_of: Make, warnings: list[str]) -> None:
    filled = Filled(store, make_spec())
    filled.fill(6)
    file = Path(mirror_url(store.url).removeprefix("sqlite:///"))
    file.write_bytes(b"this is no database, whatever its name says" * 100)
    mirror = mirror_of(filled)
    assert mirror.sync() == 0 and mirror.sync() == 0
    assert len(warnings) == 1 and "dashboard" in warnings[0], "said once, not with every trial"
    file.unlink()
    assert mirror.sync() == 6 and copied(store) == list(filled.ours())


def test_a_database_that_was_away_is_written_on(own_postgres: Postgres, mirror_of: Make, warnings: list[str]) -> None:
    store = open_store(own_postgres.database())
    filled = Filled(store, make_spec())
    mirror = mirror_of(filled)
    filled.fill(3)
    assert mirror.sync() == 3
    own_postgres.restart()
    filled.fill(2)
    assert mirror.sync() == 2 and not warnings, "a broken connection is replaced"
    filled.fill(2)
    own_postgres.stop()
    assert mirror.sync() == 0 and len(warnings) == 1
    own_postgres.start()
    assert mirror.sync() == 2 and copied(store) == list(filled.ours())
    mirror.close()
    store.close()


def test_the_objective_has_a_name(store: Store, mirror_of: Make) -> None:
    filled = Filled(store, make_spec(objective="worst"))
    mirror_of(filled).sync()
    with stock(store) as study:
        assert study.metric_names == ["worst of the tasks"]


def test_what_the_bulk_writing_knows_is_the_installed_optunas(store: Store, mirror_of: Make) -> None:
    mirror_of(Filled(store, make_spec())).sync()
    tables = Neighbour(mirror_url(store.url))
    assert tables.version() == bulk.WRITTEN_FOR, "see whether db/neighbour.py still writes all there is to write"
    tables.close()


def test_no_trial_is_read_again(store: Store, mirror_of: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    filled = Filled(store, make_spec())
    filled.fill(40)
    mirror = mirror_of(filled)
    mirror.sync()
    filled.fill(1)
    pages: list[int] = []
    read = store.trials.page

    def noted(study: int, after: int | None, limit: int, state: str | None = None) -> object:
        page = read(study, after, limit, state)
        pages.append(len(page))
        return page

    monkeypatch.setattr(store.trials, "page", noted)
    assert mirror.sync() == 1 and pages == [1]
