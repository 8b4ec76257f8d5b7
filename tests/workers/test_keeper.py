"""How a worker's keeper sees to it that it leaves, whatever Celery does."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from db.store import open_store
from workers import keeper as module
from workers.keeper import Keeper
from workers.settings import WorkerServiceSettings


class _Stuck:
    """A feeder that never ends, however often it is woken."""

    def __init__(self, work: tuple[str, int] | None) -> None:
        self.work, self.woken = work, threading.Event()

    def at_work(self) -> tuple[str, int] | None:
        return self.work

    def wake(self) -> None:
        self.woken.set()


@contextmanager
def _keeper(folder: Path, feeder: _Stuck, leave: Callable[[int], None]) -> Iterator[Keeper]:
    store = open_store(f"sqlite:///{folder}/db.sqlite")
    settings = WorkerServiceSettings(store.url, "redis://none", drain_seconds=1000.0, name="w")
    keeper = Keeper(store, settings, feeder, leave)
    keeper.start()
    try:
        assert [p.name for p in store.processes.alive("worker")] == ["w"]
        yield keeper
        keeper.close()
        assert store.processes.alive("worker") == ()
    finally:
        keeper.close()
        store.close()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "IDLE_SECONDS", 0.2)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.05)


def test_a_worker_without_work_is_not_waited_for(tmp_path: Path) -> None:
    left = threading.Event()
    with _keeper(tmp_path, feeder := _Stuck(None), lambda code: left.set()) as keeper:
        assert not left.wait(0.5)  # nobody asked it to
        keeper.drain()
        assert feeder.woken.wait(10) and left.wait(10)


def test_a_worker_at_work_has_its_time_and_leaves_once_it_is_done(tmp_path: Path) -> None:
    left = threading.Event()
    with _keeper(tmp_path, feeder := _Stuck(("owner", 1)), lambda code: left.set()) as keeper:
        keeper.drain()
        assert feeder.woken.wait(10) and not left.wait(1.0)
        feeder.work = None
        assert left.wait(10)
