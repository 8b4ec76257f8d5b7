"""Keeps a lease alive while the work goes on, and stops the work when the lease is lost."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from db.records import Lease
from db.store import Store
from workers.bench import LeaseLost

LEASE_SECONDS = 60.0  # a tensor operation may hold up the beating thread: be generous


class Heart:
    """Renews leases from a thread of its own.

    Args:
        on_progress: told the evaluation's id, the documents done and their total.
        seconds: how long a lease lasts without a beat; it beats three times as often.
    """

    def __init__(
        self, store: Store, on_progress: Callable[[int, int, int], None], seconds: float = LEASE_SECONDS
    ) -> None:
        self.seconds = seconds
        self._store, self._on_progress = store, on_progress

    @contextmanager
    def beating(self, lease: Lease) -> Iterator[Callable[[int, int], None]]:
        """Renew the lease until the block ends; yields the progress callback, which raises LeaseLost once lost."""
        lost, over = threading.Event(), threading.Event()

        def beat() -> None:
            while not over.wait(self.seconds / 3):
                try:
                    kept = self._store.evaluations.renew(lease, self.seconds)
                except Exception:  # a database that is away for a moment; the lease outlives a missed beat
                    continue
                if not kept:
                    lost.set()
                    return

        def progress(done: int, total: int) -> None:
            if lost.is_set():
                raise LeaseLost
            self._on_progress(lease.evaluation_id, done, total)

        thread = threading.Thread(target=beat, name="heart", daemon=True)
        thread.start()
        try:
            yield progress
        finally:
            over.set()
            thread.join()
