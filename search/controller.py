"""The controller of one study: ask the strategy, dispatch to workers, tell the strategy, until the end.

All it knows it reads from the database at the start and after each change, so it can be killed at any line:
the next one replays the trials and goes on.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from db.faults import fault_point
from db.records import Lead, Study, Trial
from db.store import Store
from db.trials import NewTrial
from evaluation.objective import objective
from evaluation.result import Failed, Infeasible, Scored
from merging.errors import MergesearchError
from search.space import Space
from search.starts import Start
from search.strategies.contract import Exhausted, Observation, Proposal, Strategy, Wait
from search.study import StudySpec


class SearchFailed(MergesearchError):
    """Nothing could be scored."""


@dataclass(frozen=True)
class Told:
    """A trial was told to the strategy; `ended` of `total` trials are over."""

    trial: Trial
    ended: int
    total: int


@dataclass(frozen=True)
class Search:
    """What a controller works on.

    Attributes:
        parallel: how many trials are open at a time.
        strategy: fresh, nothing observed yet.
        on_told: called after each trial that ends.
        on_asked: called with the seconds that each proposal took.
    """

    study: Study
    spec: StudySpec
    parallel: int
    space: Space
    starts: tuple[Start, ...]
    strategy: Strategy
    on_told: Callable[[Told], None]
    on_asked: Callable[[float], None] = lambda seconds: None


class Controller:
    """Takes one search to its end, step by step.

    Args:
        lead: the right to write the study's trials; every write is refused once another controller has it.
        announce: told the ids of evaluations that are not done.
    """

    def __init__(self, search: Search, lead: Lead, store: Store, announce: Callable[[Sequence[int]], None]) -> None:
        self._search, self._lead, self._store, self._announce = search, lead, store, announce
        self._id = search.study.id
        self._weights = {t.name: t.weight for t in search.spec.evaluation.tasks}
        self._proposals: dict[int, Proposal] = {}  # of the open trials
        self._exhausted = False
        self._grounded = False  # a baseline was scored
        self._next = 0
        self._open = 0
        self._replay()

    def step(self, *, adding: bool = True) -> bool:
        """Do everything that can be done now: tell what is done, propose what may be tried.

        Args:
            adding: False tells only: the study is paused.

        Returns:
            Whether the search is over: the trials are used up, or the strategy has nothing left.

        Raises:
            SearchFailed: no baseline could be scored.
            LeadLost: another controller leads the study.
        """
        while True:
            self._tell()
            if adding:
                self._fill()
            if self._open == 0 and (self._exhausted or self._next >= self._search.spec.search.trials):
                return True
            if not self._store.trials.ready(self._id):  # a recipe scored before is ready at once
                return False

    def _replay(self) -> None:
        """Bring the strategy to where the database is."""
        trials = self._store.trials.all(self._id)
        for trial in trials:
            self._proposals[trial.number] = self._proposal(trial)
            self._search.strategy.reserve(trial.number, self._proposals[trial.number])
        for trial in sorted((t for t in trials if t.told_order), key=lambda t: t.told_order or 0):
            self._observe(trial)
        self._next = len(trials)
        self._open = sum(t.state == "open" for t in trials)
        fault_point("controller.replayed")
        self._announce(self._store.evaluations.unfinished(self._id))

    def _tell(self) -> None:
        for trial in self._store.trials.ready(self._id):
            fault_point("controller.telling")
            told = self._close(trial)
            fault_point("controller.told")
            self._open -= 1
            self._observe(told)
            self._search.on_told(Told(told, self._next - self._open, self._search.spec.search.trials))
        self._require_a_baseline()

    def _close(self, trial: Trial) -> Trial:
        """Judge an evaluated trial and write the judgement down."""
        tell = self._store.trials.tell
        if trial.evaluation_id is None:
            return tell(self._lead, trial.number, "infeasible", None, trial.why)
        outcome = self._store.evaluations.get(trial.evaluation_id).outcome
        if isinstance(outcome, Scored):
            value = objective(self._search.spec.objective, outcome.scores, self._weights)
            return tell(self._lead, trial.number, "complete", value)
        assert isinstance(outcome, Infeasible | Failed), f"evaluation {trial.evaluation_id} is not done"
        return tell(self._lead, trial.number, outcome.kind, None, outcome.why)

    def _fill(self) -> None:
        """Keep `parallel` trials open."""
        limits = self._search.spec.search
        while not self._exhausted and self._open < self._search.parallel and self._next < limits.trials:
            number = self._next
            if number < len(self._search.starts):
                start = self._search.starts[number]
                self._add(number, start.origin, Proposal(start.params, start.recipe))
                self._search.strategy.reserve(number, Proposal(start.params, start.recipe))
                continue
            began = time.perf_counter()
            proposal = self._search.strategy.propose(number)
            self._search.on_asked(time.perf_counter() - began)
            fault_point("controller.proposed")
            if isinstance(proposal, Wait) and self._open:
                return
            if isinstance(proposal, Wait | Exhausted):
                self._exhausted = True  # waiting with nothing open would wait for ever
                return
            self._add(number, limits.strategy, proposal)
            if proposal.recipe is None:
                return  # told on the next round, before another is proposed

    def _add(self, number: int, origin: str, proposal: Proposal) -> None:
        recipe = proposal.recipe
        digest = recipe.digest(self._search.study.setup["fingerprints"]) if recipe else None
        new = NewTrial(number, origin, proposal.params, recipe, digest, proposal.why)
        trial = self._store.trials.add(self._lead, new)
        self._proposals[number] = proposal
        fault_point("controller.added")
        self._next += 1
        self._open += 1
        if trial.evaluation_id is not None:
            self._announce([trial.evaluation_id])
            fault_point("controller.announced")

    def _observe(self, trial: Trial) -> None:
        proposal = self._proposals.pop(trial.number)
        self._search.strategy.observe(
            Observation(trial.number, trial.origin, proposal.params, proposal.recipe, trial.value)
        )

    def _proposal(self, trial: Trial) -> Proposal:
        if trial.evaluation_id is None:
            return Proposal(trial.params, None, trial.why)
        return Proposal(trial.params, self._store.evaluations.recipe(trial.evaluation_id))

    def _require_a_baseline(self) -> None:
        """Stop a study whose every baseline fails: the rest would only burn time."""
        if self._grounded:
            return
        baselines = self._store.trials.page(self._id, None, len(self._search.starts))
        if len(baselines) < len(self._search.starts) or any(t.state == "open" for t in baselines):
            return
        if not any(t.state == "complete" for t in baselines):
            raise SearchFailed(
                f"none of the {len(baselines)} starts could be scored: {baselines[0].why}; "
                "mend that, then run the study under another name"
            )
        self._grounded = True
