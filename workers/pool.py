"""The embedded pool: worker processes of this machine, one a device, fed over pipes.

It satisfies `search.dispatch.Dispatcher`. What it is told are hints; the rows say what is to be done, so a
worker that dies costs nothing but its time: its lease is taken back and the work goes to another.
"""

import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from db.store import Store
from merging.errors import MergesearchError
from workers.host import cores, owner_name
from workers.process import WorkerSettings, run

MAX_EARLY_DEATHS = 3
LEAVE_SECONDS = 5.0


class WorkersBroken(MergesearchError):
    """Workers cannot start at all, so nothing can be scored."""


@dataclass
class _Worker:
    slot: int
    owner: str
    process: BaseProcess
    pipe: "Connection[Any, Any]"
    log: Path
    ready: bool = False
    doing: int | None = None


class Pool:
    """Worker processes for one study.

    Args:
        devices: one worker each.
        logs: folder of the workers' log files.
        on_progress: told an evaluation's id, the documents done and their total.
    """

    def __init__(
        self,
        store: Store,
        study_id: int,
        devices: Sequence[str],
        logs: Path,
        on_progress: Callable[[int, int, int], None],
    ) -> None:
        self._store, self._study_id, self._devices, self._logs = store, study_id, tuple(devices), logs
        self._on_progress = on_progress
        self._queue: dict[int, None] = {}  # ids waiting for a worker, in order
        self._workers: list[_Worker] = []
        self._early_deaths = 0

    def __enter__(self) -> "Pool":
        self._workers = [self._start(slot) for slot in range(len(self._devices))]
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers: idle ones leave by themselves, busy ones are killed and their work is queued again."""
        for worker in self._workers:
            worker.pipe.close()
            if worker.doing is not None:
                worker.process.kill()
        for worker in self._workers:
            worker.process.join(LEAVE_SECONDS)
            if worker.process.exitcode is None:
                worker.process.kill()
                worker.process.join()
        self._workers = []
        self._store.evaluations.release_all(self._study_id)

    @property
    def processes(self) -> tuple[int, ...]:
        """Process ids of the workers, by slot."""
        return tuple(worker.process.pid for worker in self._workers if worker.process.pid is not None)

    def announce(self, evaluation_ids: Sequence[int]) -> None:
        """These are queued in the database."""
        doing = {worker.doing for worker in self._workers}
        self._queue.update(dict.fromkeys(i for i in evaluation_ids if i not in doing))
        self._feed()

    def wait(self, seconds: float) -> None:
        """Handle what the workers say until one has finished or died, or the time is over.

        Raises:
            WorkersBroken: they die or refuse before they are ready.
        """
        listened: dict[Any, _Worker] = {}
        for worker in self._workers:
            listened |= {worker.pipe: worker, worker.process.sentinel: worker}
        happened = wait(list(listened), seconds)
        if not happened:  # nothing was said: look whether a message was lost
            self.announce(self._store.evaluations.unfinished(self._study_id))
            return
        for worker in {id(listened[thing]): listened[thing] for thing in happened}.values():
            self._hear(worker)
        self._feed()

    def _hear(self, worker: _Worker) -> None:
        while True:
            try:
                message = worker.pipe.recv() if worker.pipe.poll() else None
            except (EOFError, OSError):
                self._bury(worker)
                return
            if message is None:
                break
            self._message(worker, *message)
        if not worker.process.is_alive():
            self._bury(worker)

    def _message(self, worker: _Worker, kind: str, *content: Any) -> None:
        if kind == "progress":
            self._on_progress(*content)
        elif kind == "ready":
            worker.ready, self._early_deaths = True, 0
        elif kind == "idle":
            worker.doing = None
            self.announce(self._store.evaluations.unfinished(self._study_id))  # it may have been put back
        elif kind == "broken":
            raise WorkersBroken(content[0])

    def _bury(self, worker: _Worker) -> None:
        """Take a dead worker's work back and put another in its place."""
        worker.process.join()
        worker.pipe.close()
        why = f"the worker process died (exit code {worker.process.exitcode})"
        if not worker.ready:
            self._early_deaths += 1
            if self._early_deaths >= MAX_EARLY_DEATHS:
                raise WorkersBroken(f"{why} {self._early_deaths} times while starting; see {worker.log}")
        back = self._store.evaluations.lost_worker(worker.owner, why)
        self._queue = dict.fromkeys((*back, *([worker.doing] if worker.doing else []), *self._queue))
        self._workers[worker.slot] = self._start(worker.slot)

    def _feed(self) -> None:
        for worker in self._workers:
            if not self._queue:
                return
            if worker.ready and worker.doing is None:
                worker.doing = next(iter(self._queue))
                del self._queue[worker.doing]
                try:
                    worker.pipe.send(worker.doing)
                except OSError:
                    self._queue = dict.fromkeys((worker.doing, *self._queue))
                    worker.doing = None
                    return  # its death is heard of in the next wait

    def _start(self, slot: int) -> _Worker:
        context = multiprocessing.get_context("spawn")  # CUDA and threads do not survive a fork
        ours, theirs = context.Pipe()
        log = self._logs / f"worker-{slot}.log"
        settings = WorkerSettings(
            url=self._store.url,
            study_id=self._study_id,
            device=self._devices[slot],
            threads=max(1, cores() // len(self._devices)),
            log=log,
            owner=owner_name(),
        )
        process = context.Process(target=run, args=(theirs, settings), name=f"worker-{slot}", daemon=True)
        process.start()
        theirs.close()
        return _Worker(slot, settings.owner, process, ours, log)
