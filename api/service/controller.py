"""`mergesearch controller`: leads studies, with two clerks at its side and the dashboard's copy behind it."""

import logging
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess

from api.service.clerk import ClerkSettings, clerk_main
from api.service.logs import set_up_logs
from api.service.mirrors import Mirrors
from api.service.settings import ServiceSettings
from db.session import is_away
from db.store import Store, connect_store
from db.wakeups import CONTROLLER, Wakeups
from search.keeper import Keeper
from search.reconciler import Reconciler
from workers.dispatcher import CeleryDispatcher
from workers.host import owner_name

DESKS = (("check", "judge"), ("export",))  # an export takes its time: nobody waits behind one to submit a study
_BACKOFF_SECONDS = 1.0

log = logging.getLogger(__name__)


def run_controller(settings: ServiceSettings) -> None:
    """Lead studies until told to stop (SIGTERM, SIGINT).

    Raises:
        SchemaBehind, BrokenDatabase: the database is not ready.
    """
    set_up_logs(settings.log_format)
    store = connect_store(settings.database_url)
    name = f"controller:{owner_name()}"
    stop = _stop_on_signals()
    dispatcher = CeleryDispatcher(settings.redis_url)
    mirrors = Mirrors(store)
    clerks = Clerks(settings, store)
    try:
        with Keeper(store, name, settings.controller_lease_seconds) as keeper, mirrors.writing(), clerks.working():
            log.info("%s began", name)
            _reconcile(store, Reconciler(store, dispatcher.publish, keeper, mirrors.changed), clerks, stop)
    finally:
        dispatcher.close()
        store.close()
    log.info("%s left", name)


def _stop_on_signals() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _reconcile(store: Store, reconciler: Reconciler, clerks: "Clerks", stop: threading.Event) -> None:
    wakeups = store.wakeups(CONTROLLER)
    try:
        while not stop.is_set():
            clerks.mind()
            try:
                due = reconciler.round()
            except Exception as error:
                if not is_away(error):
                    raise
                log.warning("the database is away (%s)", type(error).__name__)
                reconciler.forget()
                stop.wait(_BACKOFF_SECONDS)
                continue
            _wait(wakeups, due, stop)
    finally:
        wakeups.close()


def _wait(wakeups: Wakeups, due: float, stop: threading.Event) -> None:
    """Until woken, due, or told to stop; signals are looked for twice a second."""
    until = time.monotonic() + due
    while not stop.is_set() and (left := until - time.monotonic()) > 0:
        if wakeups.wait(min(left, 0.5)):
            return


class Clerks:
    """The clerk processes of one controller: one a desk, replaced when they die."""

    def __init__(self, settings: ServiceSettings, store: Store) -> None:
        self._settings, self._store = settings, store
        self._context = multiprocessing.get_context("spawn")
        self._processes: dict[tuple[str, ...], SpawnProcess] = {}
        self._names: dict[tuple[str, ...], str] = {}
        self._not_before = 0.0

    @contextmanager
    def working(self) -> Iterator[None]:
        """Start them for the length of the block."""
        self.mind()
        try:
            yield
        finally:
            for process in self._processes.values():
                process.kill()
                process.join()
            for name in self._names.values():
                self._let_go(name, died=False)

    def mind(self) -> None:
        """Replace those that died, at most one a second."""
        for kinds in DESKS:
            process = self._processes.get(kinds)
            if process is not None and process.is_alive():
                continue
            if time.monotonic() < self._not_before:
                return
            if process is not None:
                log.error("the clerk for %s died (exit code %s)", "/".join(kinds), process.exitcode)
                self._let_go(self._names[kinds], died=True)
                self._not_before = time.monotonic() + _BACKOFF_SECONDS
            self._processes[kinds] = self._start(kinds)

    def _let_go(self, name: str, *, died: bool) -> None:
        """Let another do at once what a clerk was at."""
        try:
            self._store.jobs.release(name, died=died)
            self._store.processes.leave(name)
        except Exception as error:  # its lease will run out
            log.warning("the jobs of %s could not be released (%s)", name, type(error).__name__)

    def _start(self, kinds: tuple[str, ...]) -> SpawnProcess:
        name = self._names[kinds] = f"clerk:{owner_name()}"
        given = self._settings
        settings = ClerkSettings(name, given.database_url, kinds, given.exports, given.log_format)
        process = self._context.Process(target=clerk_main, args=(settings,), name=f"clerk-{kinds[0]}", daemon=True)
        process.start()
        return process
