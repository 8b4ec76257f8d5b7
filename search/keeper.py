"""Keeps the leads of one controller process alive from a thread of its own, and says that the process is alive."""

import logging
import threading
from collections.abc import Callable
from functools import partial

from db.records import Lead
from db.session import is_away
from db.store import Store

log = logging.getLogger(__name__)


class Keeper:
    """The leads this process holds.

    Args:
        name: of this process; no other has it.
        seconds: how long a lead lasts when it is not renewed; it is, three times as often.
    """

    def __init__(self, store: Store, name: str, seconds: float) -> None:
        self._store, self._name, self._seconds = store, name, seconds
        self._leads: dict[int, Lead] = {}
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="keeper", daemon=True)

    def __enter__(self) -> "Keeper":
        self._store.processes.beat(self._name, "controller", {})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let others lead at once."""
        self._over.set()
        self._thread.join()
        try:
            for lead in tuple(self._leads.values()):
                self.release(lead)
            self._store.processes.leave(self._name)
        except Exception as error:
            if not is_away(error):
                raise
            log.warning("left without a word, the database is away (%s)", type(error).__name__)

    def take(self, study_id: int) -> Lead | None:
        """Lead a study, if nobody does."""
        lead = self._store.leads.take(study_id, self._name, self._seconds)
        if lead is not None:
            with self._lock:
                self._leads[study_id] = lead
        return lead

    def holds(self, lead: Lead) -> bool:
        """Whether the lead was still ours when it was last renewed."""
        with self._lock:
            return self._leads.get(lead.study_id) == lead

    def release(self, lead: Lead) -> None:
        """Give a lead up, so that another may take it at once."""
        self._forget(lead)
        self._store.leads.release(lead)

    def _forget(self, lead: Lead) -> None:
        with self._lock:
            if self._leads.get(lead.study_id) == lead:
                del self._leads[lead.study_id]

    def _beat(self) -> None:
        while not self._over.wait(self._seconds / 3):
            with self._lock:
                leads = tuple(self._leads.values())
            self._try(partial(self._store.processes.beat, self._name, "controller", {"studies": len(leads)}))
            for lead in leads:
                self._try(partial(self._renew, lead))

    def _renew(self, lead: Lead) -> None:
        if not self._store.leads.renew(lead, self._seconds):
            self._forget(lead)

    def _try(self, deed: Callable[[], object]) -> None:
        """Do it. A database may be away for a moment: the leads outlive a missed beat, and one is not all."""
        try:
            deed()
        except Exception as error:
            log.warning("could not renew (%s)", " ".join(str(error).split())[:200])
