"""Keeps the dashboard's copies of all studies up to date, from a thread: the search never waits for them."""

import logging
import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from db.records import Study
from db.session import is_away
from db.store import Store
from search.mirror import Mirror, mirror_url
from search.space import space_of

PAST_SECONDS = 86_400.0  # studies that ended before need no last word any more
SECONDS = 1.0  # between two writings: many trials are cheaper together
IDLE_SECONDS = 60.0  # a copy that nothing happens to gives its connections back; the next writing opens it again

log = logging.getLogger(__name__)


class Mirrors:
    """The copies of all studies. Those of the studies that this process leads are kept up to date; those of
    the last day are looked at once in the beginning, for whoever died before the last word of one was written.
    """

    def __init__(self, store: Store) -> None:
        self._store, self._url = store, mirror_url(store.url)
        self._open: dict[int, Mirror] = {}
        self._written: dict[int, float] = {}  # when, by the study's id
        self._changed: set[int] = set()
        self._later: dict[int, float] = {}  # when to try again what could not be written
        self._lock = threading.Lock()
        self._over = threading.Event()

    def changed(self, study_id: int) -> None:
        """A trial of that study was told, or the study has come to an end."""
        with self._lock:
            self._changed.add(study_id)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Write what has changed, now and then, until the block ends, and once more then."""
        thread = threading.Thread(target=self._write_on, name="mirrors", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _write_on(self) -> None:
        over = False
        try:
            for study in self._store.studies.all():
                if (study.finished_at or math.inf) > time.time() - PAST_SECONDS:
                    self.changed(study.id)
        except Exception:
            log.warning("the studies could not be listed for the dashboard", exc_info=True)
        while not over:
            over = self._over.wait(SECONDS)
            for study_id in self._due():
                try:
                    self._write(self._store.studies.by_id(study_id))
                except Exception as error:  # the copy is for looking at, and can be rebuilt
                    away = is_away(error)
                    trace = None if away else error
                    log.warning("the dashboard's copy could not be written", exc_info=trace, extra={"study": study_id})
                    self._later[study_id] = time.monotonic() + (0.0 if away else IDLE_SECONDS)
            self._rest(0.0 if over else IDLE_SECONDS)

    def _due(self) -> set[int]:
        """The studies whose copies are to be written now."""
        with self._lock:
            changed, self._changed = self._changed, set()
        changed |= {study_id for study_id, when in self._later.items() if when <= time.monotonic()}
        self._later = {study_id: when for study_id, when in self._later.items() if study_id not in changed}
        return changed

    def _rest(self, seconds: float) -> None:
        """Close the copies that were not written for so long: their studies are over, led by others, or slow."""
        for study_id, written in tuple(self._written.items()):
            if time.monotonic() - written >= seconds:
                self._close(study_id)

    def _close(self, study_id: int) -> None:
        del self._written[study_id]
        self._open.pop(study_id).close()

    def _write(self, study: Study) -> None:
        mirror = self._open.get(study.id)
        if mirror is None:
            mirror = Mirror(self._url, study, space_of(study), self._store, lambda said: log.warning("%s", said))
            self._open[study.id] = mirror
        self._written[study.id] = time.monotonic()
        if study.state in ("running", "paused"):
            mirror.sync()
            return
        mirror.finish()
        self._close(study.id)
