"""A study's course: the search, then the finalists on the holdout. One step at a time, from wherever it stands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from db.faults import fault_point
from db.records import Lead, Trial
from db.store import Store
from search.controller import Controller, Search
from search.dispatch import Dispatcher
from search.finalists import Finalists, Unmeasured, find_finalists

WAIT_SECONDS = 1.0  # the longest that a change which nobody announced stays unseen
SEARCHING, HOLDOUT, JUDGING = "searching", "holdout", "judging"


@dataclass(frozen=True)
class Finished:
    """All trials are told and the finalists measured: the verdict can be reached."""

    trials: tuple[Trial, ...]
    finalists: Finalists


class Course:
    """One study that this process leads.

    Args:
        announce: told the ids of evaluations that are not done.
        on_phase: told when a phase begins: searching, holdout, judging.
    """

    def __init__(
        self,
        search: Search,
        lead: Lead,
        store: Store,
        announce: Callable[[Sequence[int]], None],
        on_phase: Callable[[str], None] = lambda phase: None,
    ) -> None:
        self._search, self._lead, self._store, self._announce, self._on_phase = search, lead, store, announce, on_phase
        self._controller: Controller | None = Controller(search, lead, store, announce)
        self._phase = ""
        self._waiting: tuple[int, ...] = ()

    def step(self, *, adding: bool = True) -> Finished | None:
        """Do everything that can be done now; what remains is the verdict, or None while workers have work.

        Args:
            adding: False begins nothing new, no comparison either: the study is paused.

        Raises:
            SearchFailed: no baseline could be scored.
            HoldoutFailed: nobody could be scored on the holdout.
            LeadLost: another process leads the study.
        """
        if self._controller is not None:
            if not self._controller.step(adding=adding):
                self._enter(SEARCHING)
                return None
            self._controller = None
            fault_point("controller.holdout")
        if not adding or any(self._store.evaluations.state(id_) != "done" for id_ in self._waiting):
            return None
        trials = self._store.trials.all(self._search.study.id)
        found = find_finalists(self._store, self._search.study, trials, tuple(self._search.space.experts))
        if isinstance(found, Unmeasured):
            self._enter(HOLDOUT)
            self._waiting = found.evaluation_ids
            self._announce(found.evaluation_ids)
            return None
        self._enter(JUDGING)
        return Finished(trials, found)

    def run(self, dispatcher: Dispatcher) -> Finished:
        """Step until the verdict can be reached, with the workers of this run. Raises as `step`.

        Args:
            dispatcher: the one whose `announce` the course was given.
        """
        while (finished := self.step()) is None:
            dispatcher.wait(WAIT_SECONDS)
        return finished

    def _enter(self, phase: str) -> None:
        if phase != self._phase:
            self._phase = phase
            self._store.studies.enter(self._lead, phase)
            self._on_phase(phase)
