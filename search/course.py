"""A study's course: the search, the full scoring of who could still win, what explains the winner, then the holdout.

One step at a time, from wherever it stands.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from db.faults import fault_point
from db.records import Lead, Trial
from db.store import Store
from search.controller import Controller, Search
from search.dispatch import Dispatcher
from search.explain.explaining import Explaining
from search.finalists import Finalists, Unmeasured, find_finalists
from search.originals import Originals
from search.rescoring import Rescoring

WAIT_SECONDS = 1.0  # the longest that a change which nobody announced stays unseen
SEARCHING, RESCORING, ORIGINALS, EXPLAINING = "searching", "rescoring", "originals", "explaining"
HOLDOUT, JUDGING = "holdout", "judging"


class Phase(Protocol):
    """What is scored between the search and the holdout."""

    def step(self) -> tuple[int, ...]:
        """Do what can be done; ids of the evaluations that are still to be done, none when all is done."""
        ...


@dataclass(frozen=True)
class Finished:
    """All trials are told and the finalists measured: the verdict can be reached."""

    trials: tuple[Trial, ...]
    finalists: Finalists


class Course:
    """One study that this process leads.

    Args:
        announce: told the ids of evaluations that are not done.
        on_phase: told when a phase begins: searching; rescoring, originals and explaining, if anything is scored for
            them; holdout; judging.
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
        self._ahead: list[tuple[str, Phase]] = []  # after the search, before the holdout
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
            self._ahead = self._phases(self._controller)
            self._controller = None
        if not adding or any(self._store.evaluations.state(id_) != "done" for id_ in self._waiting):
            return None
        while self._ahead:
            name, phase = self._ahead[0]
            if waiting := phase.step():
                self._await(name, waiting)
                return None
            del self._ahead[0]
            if not self._ahead:
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

    def _phases(self, searched: Controller) -> list[tuple[str, Phase]]:
        study = self._search.study
        known = (self._store, self._lead, study, searched.judge, searched.standings)
        explaining = Explaining(self._store, study)
        return [(RESCORING, Rescoring(*known)), (ORIGINALS, Originals(*known)), (EXPLAINING, explaining)]

    def _await(self, phase: str, evaluation_ids: tuple[int, ...]) -> None:
        self._enter(phase)
        self._waiting = evaluation_ids
        self._announce(evaluation_ids)

    def _enter(self, phase: str) -> None:
        if phase != self._phase:
            self._phase = phase
            self._store.studies.enter(self._lead, phase)
            self._on_phase(phase)
