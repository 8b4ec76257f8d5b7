"""One thread and one database connection listen for changes, however many requests wait for one."""

import asyncio
import contextlib
import logging
import threading
import time
from types import TracebackType

from db.store import Store
from db.wakeups import EVENT

log = logging.getLogger("mergesearch.api")
_LOOK_SECONDS = 0.5  # how soon the thread sees that it shall end
_REST_SECONDS = 0.2  # after a ring: many listeners all looking at every change would keep the database busy


class Listener:
    """One request that waits. A context manager, for one event loop."""

    def __init__(self, bell: "Bell") -> None:
        self._bell, self._loop, self._rung = bell, asyncio.get_running_loop(), asyncio.Event()

    def __enter__(self) -> "Listener":
        self._bell.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bell.remove(self)

    def ring(self) -> None:
        """Wake it, from any thread."""
        with contextlib.suppress(RuntimeError):  # its loop has ended
            self._loop.call_soon_threadsafe(self._rung.set)

    async def wait(self, seconds: float) -> None:
        """Return when the bell has rung since the last call, or after that time: look for yourself then."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), seconds)
        self._rung.clear()


class Bell:
    """Rings for every listener when something has happened in the database. Its thread begins with the first."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._listeners: set[Listener] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()

    @property
    def closed(self) -> bool:
        """Whether the service is ending, so that nobody should go on waiting."""
        return self._closed.is_set()

    def listen(self) -> Listener:
        """Somebody who waits, for a `with` block."""
        return Listener(self)

    def add(self, listener: Listener) -> None:
        """Ring for this one too."""
        with self._lock:
            self._listeners.add(listener)
            if self._thread is None and not self.closed:
                self._thread = threading.Thread(target=self._listen, name="bell", daemon=True)
                self._thread.start()

    def remove(self, listener: Listener) -> None:
        """Ring no more for this one."""
        with self._lock:
            self._listeners.discard(listener)

    def end(self) -> None:
        """Wake everybody for the last time: nobody shall wait any more."""
        self._closed.set()
        self._ring()

    def close(self) -> None:
        """The same, and end the thread."""
        self.end()
        if self._thread is not None:
            self._thread.join()

    def _ring(self) -> None:
        with self._lock:
            listeners = tuple(self._listeners)
        for listener in listeners:
            listener.ring()

    def _listen(self) -> None:
        while not self.closed:
            try:
                with contextlib.closing(self._store.wakeups(EVENT)) as wakeups:
                    while not self.closed:
                        if wakeups.wait(_LOOK_SECONDS):
                            self._ring()
                            self._closed.wait(_REST_SECONDS)
            except Exception:  # a bell that is silent for a while makes things late, not wrong
                log.warning("waiting for changes failed, trying again", exc_info=True, extra={"action": "bell"})
                time.sleep(_LOOK_SECONDS)
