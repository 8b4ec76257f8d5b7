"""The controller of one study: ask the strategy, dispatch to workers, tell the strategy, until the end.

All it knows it reads from the database at the start and after each change, so it can be killed at any line:
the next one replays the trials and goes on.
"""

from collections.abc import Callable
from dataclasses import dataclass

from db.records import Study, Trial
from db.store import Store
from db.trials import NewTrial
from evaluation.objective import objective
from evaluation.result import Failed, Infeasible, Scored
from merging.errors import MergesearchError
from search.dispatch import Dispatcher
from search.space import Space
from search.starts import Start
from search.strategies.contract import Exhausted, Observation, Proposal, Strategy, Wait
from search.study import StudySpec

WAIT_SECONDS = 1.0  # the longest that a change which nobody announced stays unseen


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
    """

    study: Study
    spec: StudySpec
    parallel: int
    space: Space
    starts: tuple[Start, ...]
    strategy: Strategy
    on_told: Callable[[Told], None]


class Controller:
    """Runs one search to its end. The caller sees to it that a study has one controller at a time."""

    def __init__(self, search: Search, store: Store, dispatcher: Dispatcher) -> None:
        self._search, self._store, self._dispatcher = search, store, dispatcher
        self._id = search.study.id
        self._weights = {t.name: t.weight for t in search.spec.evaluation.tasks}
        self._exhausted = False
        self._grounded = False  # a baseline was scored
        self._next = 0
        self._open = 0

    def run(self) -> tuple[Trial, ...]:
        """Search until the trials are used up or the strategy has nothing left.

        Returns:
            All trials, by number.

        Raises:
            SearchFailed: no baseline could be scored.
        """
        self._replay()
        while True:
            self._tell()
            self._fill()
            if self._open == 0 and (self._exhausted or self._next >= self._search.spec.search.trials):
                return self._store.trials.all(self._id)
            if not self._store.trials.ready(self._id):  # a recipe scored before is ready at once
                self._dispatcher.wait(WAIT_SECONDS)

    def _replay(self) -> None:
        """Bring the strategy to where the database is."""
        trials = self._store.trials.all(self._id)
        for trial in trials:
            self._search.strategy.reserve(trial.number, self._proposal(trial))
        for trial in sorted((t for t in trials if t.told_order), key=lambda t: t.told_order or 0):
            self._observe(trial)
        self._next = len(trials)
        self._open = sum(t.state == "open" for t in trials)
        self._dispatcher.announce(self._store.evaluations.unfinished(self._id))

    def _tell(self) -> None:
        for trial in self._store.trials.ready(self._id):
            told = self._close(trial)
            self._open -= 1
            self._observe(told)
            self._search.on_told(Told(told, self._next - self._open, self._search.spec.search.trials))
        self._require_a_baseline()

    def _close(self, trial: Trial) -> Trial:
        """Judge an evaluated trial and write the judgement down."""
        tell = self._store.trials.tell
        if trial.evaluation_id is None:
            return tell(self._id, trial.number, "infeasible", None, trial.why)
        outcome = self._store.evaluations.get(trial.evaluation_id).outcome
        if isinstance(outcome, Scored):
            value = objective(self._search.spec.objective, outcome.scores, self._weights)
            return tell(self._id, trial.number, "complete", value)
        assert isinstance(outcome, Infeasible | Failed), f"evaluation {trial.evaluation_id} is not done"
        return tell(self._id, trial.number, outcome.kind, None, outcome.why)

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
            proposal = self._search.strategy.propose(number)
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
        trial = self._store.trials.add(self._id, new)
        self._next += 1
        self._open += 1
        if trial.evaluation_id is not None:
            self._dispatcher.announce([trial.evaluation_id])

    def _observe(self, trial: Trial) -> None:
        proposal = self._proposal(trial)
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
        baselines = self._store.trials.all(self._id)[: len(self._search.starts)]
        if len(baselines) < len(self._search.starts) or any(t.state == "open" for t in baselines):
            return
        if not any(t.state == "complete" for t in baselines):
            raise SearchFailed(
                f"none of the {len(baselines)} starts could be scored: {baselines[0].why}; "
                "mend that, then run the study under another name"
            )
        self._grounded = True
