"""What a worker's parent process does beside feeding its child. A thread, so that no broker holds it up.

It says that the worker is alive, takes back at once what a dead child held, and sees to it that the worker leaves
in time when it is asked to. It loads no torch.
"""

import logging
import os
import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

from db.session import is_away
from db.store import Store
from workers.settings import WorkerServiceSettings

BEAT_SECONDS = 10.0
RETRY_SECONDS = 0.5
LEAVE_SECONDS = 5.0  # for the child to notice that its work was handed back
IDLE_SECONDS = 10.0  # for a worker without work: Celery's way out takes two, and was once seen to take more than 25
_log = logging.getLogger(__name__)
Deed = Callable[[], object]


class Feeder(Protocol):
    """Who takes the messages and feeds the child."""

    def at_work(self) -> tuple[str, int] | None:
        """Whose lease the child works on, and which evaluation's; None: it waits."""
        ...

    def wake(self) -> None:
        """Have it look whether it is to leave."""
        ...


class Keeper:
    """Keeps one worker. Its methods only leave word for the thread, so signal handlers and event loops may call them.

    Args:
        leave: ends the process at once.
    """

    def __init__(
        self,
        store: Store,
        settings: WorkerServiceSettings,
        feeder: Feeder,
        leave: Callable[[int], None] = os._exit,
    ) -> None:
        self._store, self._settings, self._feeder, self._leave = store, settings, feeder, leave
        self._words: queue.SimpleQueue[Deed] = queue.SimpleQueue()  # its put may be called from a signal handler
        self._undone: list[Deed] = []  # what waits for the database
        self._deadline: float | None = None  # of the drain
        self._idle_since: float | None = None  # while asked to leave
        self._handed_back = self._over = False
        self._next_beat = 0.0
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Register the worker, and go on until `close`."""
        if self._try(self._beat):
            self._next_beat = time.monotonic() + BEAT_SECONDS
        self._thread.start()

    def died(self, owner: str, how: str) -> None:
        """The child died at work: what it held is queued again at once, and the attempt counts."""
        why = f"its worker process died ({how})"
        _log.error("the child died: %s", how, extra={"action": "child.died", "worker": self._settings.name})
        self._words.put(lambda: self._undone.append(lambda: self._store.evaluations.lost_worker(owner, why)))

    def drain(self) -> None:
        """The worker is asked to leave: what it does may end within its time. Asked again: at once."""
        self._words.put(self._drain)

    def close(self) -> None:
        """The worker is gone."""
        self._words.put(self._end)
        self._thread.join(LEAVE_SECONDS)

    def _drain(self) -> None:
        now = time.monotonic()
        self._deadline = now + self._settings.drain_seconds if self._deadline is None else now
        self._next_beat = 0.0
        self._feeder.wake()

    def _end(self) -> None:
        self._over = True

    def _run(self) -> None:
        while not self._over:
            with suppress(queue.Empty):
                self._try(self._words.get(timeout=self._pause()))
            self._do_undone()
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._hurry()
            elif self._deadline is not None:
                self._leave_if_idle()
            if time.monotonic() >= self._next_beat:
                self._next_beat = time.monotonic() + BEAT_SECONDS
                self._try(self._beat)
        self._try(lambda: self._store.processes.leave(self._settings.name))

    def _pause(self) -> float:
        until = self._next_beat if self._deadline is None else min(self._next_beat, self._deadline)
        soon = self._undone or self._deadline is not None
        return min(max(until - time.monotonic(), 0.0), RETRY_SECONDS if soon else BEAT_SECONDS)

    def _do_undone(self) -> None:
        self._undone = [deed for deed in self._undone if not self._try(deed)]

    def _hurry(self) -> None:
        """Hand back what is being done, which the child notices; if it does not, end without it."""
        assert self._deadline is not None
        if self._handed_back:
            self._end_at_once()
            return
        self._handed_back, self._deadline = True, time.monotonic() + LEAVE_SECONDS
        if (work := self._feeder.at_work()) is not None:
            owner, evaluation_id = work
            if self._try(lambda: self._store.evaluations.hand_back(owner)):
                _log.warning("handed back", extra={"action": "worker.handed_back", "evaluation": evaluation_id})

    def _leave_if_idle(self) -> None:
        """Nothing is at work, so nothing is lost by not waiting for Celery: a message it holds is only a hint."""
        now = time.monotonic()
        if self._feeder.at_work() is not None:
            self._idle_since = None
        elif self._idle_since is None:
            self._idle_since = now
        elif now - self._idle_since >= IDLE_SECONDS:
            _log.warning("nothing to do and still not gone: it is ended", extra={"action": "worker.not_awaited"})
            self._end_at_once()

    def _end_at_once(self) -> None:
        self._try(lambda: self._store.processes.leave(self._settings.name))
        self._leave(0)  # the child dies with us

    def _beat(self) -> None:
        work = self._feeder.at_work()
        detail: dict[str, Any] = {
            "pools": list(self._settings.pools),
            "device": "rehearsal" if self._settings.rehearsal else self._settings.device,
            "evaluation": work[1] if work else None,
            "stopping": self._deadline is not None,
        }
        self._store.processes.beat(self._settings.name, "worker", detail)

    def _try(self, deed: Deed) -> bool:
        """Do it; whether that went well. The database may be away, and comes back; the thread outlives it all."""
        try:
            deed()
        except Exception as error:
            _log.warning("to be tried again: %s", error, exc_info=not is_away(error), extra={"action": "keeper.missed"})
            return False
        return True
