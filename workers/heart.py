"""Keeps a lease alive while the work goes on, says how far it is, and stops the work when the lease is lost."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from db.records import Lease
from db.store import Store

LEASE_SECONDS = 60.0  # a tensor operation may hold up the beating thread: be generous
PROGRESS_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Beat(Protocol):
    """What the work calls to say how far it is."""

    def __call__(self, done: int, total: int, speed: float | None, measuring: tuple[int, int] | None = None, /) -> None:
        """Say it.

        Args:
            done, total: documents.
            speed: tokens a second, once it is known.
            measuring: before any document is scored: artefacts that are measured, and how many were missing.

        Raises:
            LeaseLost: the lease is lost.
        """
        ...


class LeaseLost(Exception):
    """The evaluation belongs to somebody else now, or is not wanted any more: stop, and write nothing."""


class Heart:
    """Renews leases and writes progress from a thread of its own: a slow database holds up no tensor.

    A database that is away is no reason to stop: nobody else can take the work meanwhile, and when it is back
    its token decides.

    Args:
        on_progress: told the evaluation's id, the documents done and their total, as often as the scorer says so.
        seconds: how long a lease lasts without a beat; it beats three times as often.
    """

    def __init__(
        self,
        store: Store,
        on_progress: Callable[[int, int, int], None] | None = None,
        seconds: float = LEASE_SECONDS,
    ) -> None:
        self.seconds = seconds
        self._store, self._on_progress = store, on_progress

    @contextmanager
    def beating(self, lease: Lease) -> Iterator[Beat]:
        """Keep the lease until the block ends; yields what the work calls to say how far it is."""
        pulse = _Pulse(self._store, lease, self.seconds)

        def progress(done: int, total: int, speed: float | None, measuring: tuple[int, int] | None = None, /) -> None:
            if pulse.lost.is_set():
                raise LeaseLost
            pulse.news = (done, total, speed, measuring)
            if self._on_progress is not None:
                self._on_progress(lease.evaluation_id, done, total)

        thread = threading.Thread(target=pulse.run, name="heart", daemon=True)
        thread.start()
        try:
            yield progress
        finally:
            pulse.over.set()
            thread.join()


class _Pulse:
    """The thread's side of one lease."""

    def __init__(self, store: Store, lease: Lease, seconds: float) -> None:
        self.lost, self.over = threading.Event(), threading.Event()
        self.news: tuple[int, int, float | None, tuple[int, int] | None] | None = None
        self._store, self._lease, self._seconds = store, lease, seconds

    def run(self) -> None:
        every = self._seconds / 3
        renewal = time.monotonic() + every
        while not self.over.wait(min(PROGRESS_SECONDS, every)):
            try:
                kept = True
                news, self.news = self.news, None
                if news is not None:
                    kept = self._store.evaluations.progress(self._lease, *news)
                if kept and time.monotonic() >= renewal:
                    kept = self._store.evaluations.renew(self._lease, self._seconds)
                    renewal = time.monotonic() + every
            except Exception as error:  # the lease outlives a missed beat
                _log.warning("the database misses a beat: %s", error, extra={"action": "heart.missed"})
                continue
            if not kept:
                self.lost.set()
                return
