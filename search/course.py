"""A study's course: the search, the full scoring of who could still win, then the finalists on the holdout.

One step at a time, from wherever it stands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from db.faults import fault_point
from db.records import Lead, Trial
from db.store import Store
from search.controller import Controller, Search
from search.dispatch import Dispatcher
from search.finalists import Finalists, Unmeasured, find_finalists
from search.originals import Originals
from search.rescoring import Rescoring

WAIT_SECONDS = 1.0  # the longest that a change which nobody announced stays unseen
SEARCHING, RESCORING, ORIGINALS, HOLDOUT, JUDGING = "searching", "rescoring", "originals", "holdout", "judging"


@dataclass(frozen=True)
class Finished:
    """All trials are told and the finalists measured: the verdict can be reached."""

    trials: tuple[Trial, ...]
    finalists: Finalists


class Course:
    """One study that this process leads.

    Args:
        announce: told the ids of evaluations that are not done.
        on_phase: told when a phase begins: searching, rescoring and originals (if anything is), holdout, judging.
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
        self._rescoring: Rescoring | None = None
        self._originals: Originals | None = None
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
            judge, standings = self._controller.judge, self._controller.standings
            known = (self._store, self._lead, self._search.study, judge, standings)
            self._rescoring, self._originals = Rescoring(*known), Originals(*known)
            self._controller = None
        if not adding or any(self._store.evaluations.state(id_) != "done" for id_ in self._waiting):
            return None
        if self._rescoring is not None:
            if waiting := self._rescoring.step():
                self._await(RESCORING, waiting)
                return None
            self._rescoring = None
        if self._originals is not None:
            if waiting := self._originals.step():
                self._await(ORIGINALS, waiting)
                return None
            self._originals = None
            fault_point("controller.holdout")
        trials = self._store.trials.all(self._search.study.id)
        self._store.studies.read_holdout(self._lead, len(trials))
        found = find_finalists(self._store, self._search.study, trials, tuple(self._search.space.experts))
        if isinstance(found, Unmeasured):
            self._await(HOLDOUT, found.evaluation_ids)
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

    def _await(self, phase: str, evaluation_ids: tuple[int, ...]) -> None:
        self._enter(phase)
        self._waiting = evaluation_ids
        self._announce(evaluation_ids)

    def _enter(self, phase: str) -> None:
        if phase != self._phase:
            self._phase = phase
            self._store.studies.enter(self._lead, phase)
            self._on_phase(phase)
