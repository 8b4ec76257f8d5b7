"""A controller's part of the service, and real worker processes, for tests that kill them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from db.records import Evaluation, Study
from db.store import Store
from merging.recipe import GroupMerge, Recipe
from workers.dispatcher import CeleryDispatcher

ROOT = Path(__file__).parent.parent.parent
LIMIT_SECONDS = 60.0  # of a loaded machine; what must be fast is measured
LEASE_SECONDS = 2.0


def make_recipe(weight: float) -> Recipe:
    """A recipe of two experts."""
    group = GroupMerge(layers=(0, 4), method="task_arithmetic", weights={"a": weight, "b": 0.5})
    return Recipe(schema_="mergesearch/recipe/v1", base="base", experts={"a": "a", "b": "b"}, groups=(group,))


@dataclass
class Worker:
    """A worker's process tree.

    Attributes:
        parent: Celery's main process, or the supervisor.
        log: what it prints.
    """

    parent: "subprocess.Popen[bytes]"
    log: Path
    began: float = field(default_factory=time.monotonic)

    def tree(self) -> list[int]:
        """The process ids of the tree, the parent's first."""
        found = [self.parent.pid]
        for pid in found:
            listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True)
            found += map(int, listed.stdout.split())
        return found

    def signal(self, number: signal.Signals) -> None:
        """To the parent alone."""
        self.parent.send_signal(number)

    def said(self, words: str) -> bool:
        """Whether it printed that."""
        return words in self.log.read_text()


@dataclass
class Service:
    """Database, messages, and what a controller does with them."""

    store: Store
    redis_url: str
    dispatcher: CeleryDispatcher
    folder: Path
    started: int = 0

    @contextmanager
    def worker(
        self, *, seconds: float = 0.0, steps: int = 4, devices: tuple[str, ...] = ("cpu",), **settings: Any
    ) -> Iterator[Worker]:
        """A rehearsing worker, killed in the end.

        Args:
            seconds: that an evaluation takes.
            settings: of the worker, beside the usual ones.
        """
        content = {
            "database_url": self.store.url,
            "redis_url": self.redis_url,
            "pools": ["default"],
            "lease_seconds": LEASE_SECONDS,
            "rehearsal": {"seconds": seconds, "steps": steps},
            **settings,
        }
        self.started += 1
        log = self.folder / f"worker-{self.started}.log"
        command = [sys.executable, "-m", "tests.workers.launch", json.dumps(content), json.dumps(devices)]
        with log.open("wb") as file:
            worker = Worker(subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True), log)
        try:
            yield worker
        finally:
            for pid in worker.tree():
                kill(pid)
            worker.parent.wait()

    def queue(self, study: Study, *weights: float) -> list[int]:
        """Evaluations that wait."""
        wanted = [self.store.evaluations.want(study.id, make_recipe(w), f"d{w}", "search")[0] for w in weights]
        return [evaluation.id for evaluation in wanted]

    def get(self, evaluation_id: int) -> Evaluation:
        """As it stands now."""
        return self.store.evaluations.get(evaluation_id)

    def until(self, true: Callable[[], object], what: str, seconds: float = LIMIT_SECONDS) -> float:
        """Do what a controller does until it is true; the seconds that took."""
        began = time.monotonic()
        while True:
            try:
                if true():
                    return time.monotonic() - began
                self.store.evaluations.sweep()
                self.dispatcher.publish(self.store.evaluations.queued())
            except Exception as error:  # a database that is just being restarted
                assert "OperationalError" in type(error).__name__, error
            assert time.monotonic() - began < seconds, f"after {seconds} s still not: {what}\n{self.logs()}"
            time.sleep(0.05)

    def done(self, ids: list[int]) -> bool:
        """Whether they all are."""
        return all(self.get(i).state == "done" for i in ids)

    def at_work(self, evaluation_id: int) -> int:
        """The process that scores it now, or 0."""
        owner = self.get(evaluation_id).owner
        return int(owner.rpartition("/")[2]) if owner else 0

    def logs(self) -> str:
        """The end of what all workers printed."""
        return "\n".join(f"{path.name}: {path.read_text()[-3000:]}" for path in sorted(self.folder.glob("*.log")))


def kill(pid: int) -> None:
    """SIGKILL, to a process that may be gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
