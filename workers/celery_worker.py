"""Celery's worker, with our way of leaving: finish within the drain time, else hand back."""

import logging
import signal
from types import FrameType
from typing import Any

from celery.app.log import Logging
from celery.apps.worker import Worker
from celery.worker import state

LOOK_SECONDS = 1.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class QuietLogging(Logging):  # type: ignore[misc]  # celery has no types
    """Leaves logging to the program; in the child, which is a fresh interpreter, it sets it up."""

    def setup(self, *args: Any, **kwargs: Any) -> bool:
        """Called by the parent and by the child, first of all."""
        set_up = self.app.conf.mergesearch.set_up_logs
        if set_up is not None:
            set_up()
        for vendor in ("celery", "kombu", "billiard"):  # they tell every message; what became of it is told by us
            logging.getLogger(vendor).setLevel(logging.WARNING)
        for vendor in ("celery.worker.request", "multiprocessing"):  # the keeper says that a child died
            logging.getLogger(vendor).setLevel(logging.CRITICAL)
        return True


class ServiceWorker(Worker):  # type: ignore[misc]  # celery has no types
    """One prefork worker with one child.

    Args:
        app: as `celery_app.make_worker_app` makes it, with its keeper.
        name: of the worker, everywhere.
    """

    def __init__(self, app: Any, name: str) -> None:
        # no gossip, mingle and events: workers need not know each other, and Redis need not carry it
        quiet = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True, "quiet": True}
        super().__init__(app=app, hostname=f"worker@{name}", optimization="fair", **quiet)

    def register_with_event_loop(self, hub: Any) -> None:
        """Look for a dead child every second: a spawned one's end wakes nobody, and Celery looks every five."""
        super().register_with_event_loop(hub)
        hub.call_repeatedly(LOOK_SECONDS, self.pool.maintain_pool)

    def at_work(self) -> tuple[str, int] | None:
        """Whose lease the child works on, and which evaluation's."""
        while True:
            try:
                return next(((r.owner, r.args[0]) for r in state.active_requests), None)
            except RuntimeError:  # the event loop changed the set meanwhile
                continue

    def wake(self) -> None:
        """Interrupt the event loop, which else looks up once a second or so."""
        if self.hub is not None:
            self.hub.call_soon(_nothing)

    def install_platform_tweaks(self, worker: Any) -> None:
        """Replaces Celery's signal handlers."""
        for number in SIGNALS:
            signal.signal(number, self._asked_to_leave)

    def _asked_to_leave(self, number: int, frame: FrameType | None) -> None:
        state.should_stop = 0  # takes no more messages, and waits for the child
        self.app.keeper.drain()


def _nothing() -> None:
    """Only being called matters."""
