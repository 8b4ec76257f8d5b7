"""The controller of one study: ask the strategy, dispatch to workers, tell the strategy, until the end.

A trial that was scored on some of the documents goes on to more or is stopped, as the racing policy decides. Where
scores are compared with the base's or the experts', nothing is told before those are known.

All it knows it reads from the database at the start and after each change, so it can be killed at any line:
the next one replays the trials and goes on.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from db.faults import fault_point
from db.records import Lead, Step, Study, Trial
from db.store import Store
from db.trials import NewTrial
from evaluation.result import Failed, Infeasible, Scored
from search.judge import Judge
from search.racing.choose import make_racer
from search.racing.contract import Contender, Promote, Stop
from search.references import find_references, is_grounded
from search.space import Space
from search.standings import Scores, Standings, judged, scores_of
from search.starts.start import Start, is_baseline
from search.stopping.clock import SearchClock
from search.stopping.ended import Ended
from search.stopping.ending import Ending
from search.stopping.limits import most_trials
from search.strategies.contract import Exhausted, Observation, Proposal, Strategy, Wait
from search.study import StudySpec
from search.twins import searched

OVERDRAWN = "the budget is used up"
SCORED = ("complete", "pruned")  # states of trials that have scores


@dataclass(frozen=True)
class Told:
    """A trial was told to the strategy; `ended` of `total` trials are over.

    Attributes:
        total: None: as many as the budget allows.
        share: how much of the nearest limit is used up, at most 1.
    """

    trial: Trial
    ended: int
    total: int | None
    share: float


@dataclass(frozen=True)
class Search:
    """What a controller works on.

    Attributes:
        parallel: how many trials are open at a time.
        strategy: fresh, nothing observed yet.
        on_told: called after each trial that ends.
        on_asked: called with the seconds that each proposal took.
        on_ended: called once the search is over, with the reason.
        now: the clock that the study's minutes go by.
    """

    study: Study
    spec: StudySpec
    parallel: int
    space: Space
    starts: tuple[Start, ...]
    strategy: Strategy
    on_told: Callable[[Told], None]
    on_asked: Callable[[float], None] = lambda seconds: None
    on_ended: Callable[[Ended], None] = lambda ended: None
    now: Callable[[], float] = time.monotonic


class Controller:
    """Takes one search to its end, step by step.

    Args:
        lead: the right to write the study's trials; every write is refused once another controller has it.
        announce: told the ids of evaluations that are not done.

    Attributes:
        judge, standings: of the trials told so far.
    """

    def __init__(self, search: Search, lead: Lead, store: Store, announce: Callable[[Sequence[int]], None]) -> None:
        self._search, self._lead, self._store, self._announce = search, lead, store, announce
        self._id = search.study.id
        self.judge = Judge(search.spec, tuple(search.space.experts))
        self.standings = Standings(store, search.study, self.judge)
        policy, seed, rungs = search.spec.racing, search.spec.search.seed, self.standings.rungs
        self._racer = make_racer(policy, rungs, seed, self._raced, proxied=self.standings.proxied)
        before, write = search.study.searched_seconds, partial(store.studies.searching, lead)
        self._clock = SearchClock(before, write, search.now)
        self._ending = Ending(search.spec, search.study, search.starts, self.standings, self._clock)
        self._proposals: dict[int, Proposal] = {}  # of the open trials
        self._grounded = False  # a start was scored
        self._next = self._open = 0
        self._beside = 0  # of those that there are, trials that no search asked for
        self._held = 0  # of the open ones, those that are scored and cannot be told yet
        self._replay()

    def step(self, *, adding: bool = True) -> bool:
        """Do everything that can be done now: tell what is done, propose what may be tried.

        Args:
            adding: False tells only: the study is paused.

        Returns:
            Whether the search is over; the study's row then says why.

        Raises:
            SearchFailed: no baseline could be scored, or not the one that scores are compared with.
            LeadLost: another controller leads the study.
        """
        while True:
            self._clock.tick(going=adding)
            self._tell()
            if adding:
                self._fill()
            if self._open == 0 and (ended := self._ending.reached(self._asked)) is not None:
                self._end(ended)
                return True
            ready = searched(self._store.trials.ready(self._id))  # a recipe scored before is ready at once
            if len(ready) == self._held:
                return False

    def _end(self, ended: Ended) -> None:
        self._grounded = self._grounded or is_grounded(self._store, self._id, len(self._search.starts))
        self._clock.tick(going=False)
        self._store.studies.end_search(self._lead, ended.model_dump(mode="json"))
        self._search.on_ended(ended)

    @property
    def _asked(self) -> int:
        """How many trials the search has asked for."""
        return self._next - self._beside

    def _replay(self) -> None:
        """Bring the strategy to where the database is."""
        everybody = self._store.trials.all(self._id)
        trials = searched(everybody)
        for trial in trials:
            self._proposals[trial.number] = self._proposal(trial)
            self._search.strategy.reserve(trial.number, self._proposals[trial.number])
        for trial in everybody:
            self._ending.note(trial)
        for trial in trials:
            self.standings.note(trial)
            if trial.origin in self.judge.needs and trial.state == "complete":
                self.judge.refer(trial.origin, scores_of(self._store, trial))
        for trial in sorted((t for t in trials if t.told_order), key=lambda t: t.told_order or 0):
            self._learn(trial)
        self._next, self._beside = len(everybody), len(everybody) - len(trials)
        self._open = sum(t.state == "open" for t in trials)
        fault_point("controller.replayed")
        self._announce(self._store.evaluations.unfinished(self._id))

    def _tell(self) -> None:
        self._held = 0
        ready = searched(self._store.trials.ready(self._id))
        asked = self._store, self._id, self.judge, ready, len(self._search.starts)
        if not self.judge.ready and not find_references(*asked):
            self._held = len(ready)
            return
        for trial in ready:
            fault_point("controller.telling")
            told = self._judge(trial)
            fault_point("controller.told")
            self.standings.note(told)
            self._ending.note(told)
            if told.state == "open":
                continue
            self._open -= 1
            self._learn(told)
            ended, total = self._asked - self._open, most_trials(self._search.spec.search)
            self._search.on_told(Told(told, ended, total, self._ending.share(ended)))
        if not self._grounded and self._asked >= len(self._search.starts):
            self._grounded = is_grounded(self._store, self._id, len(self._search.starts))

    def _judge(self, trial: Trial) -> Trial:
        """Judge an evaluated trial and write the judgement down; it may go on, and is then still open."""
        tell = self._store.trials.tell
        if trial.evaluation_id is None:
            return tell(self._lead, trial.number, "infeasible", None, trial.why)
        outcome = self._store.evaluations.get(trial.evaluation_id).outcome
        if isinstance(outcome, Infeasible | Failed):
            return tell(self._lead, trial.number, outcome.kind, None, outcome.why)
        assert isinstance(outcome, Scored), f"evaluation {trial.evaluation_id} is not done"
        scores = judged(outcome.scores)
        if self.standings.proxied and trial.rung == 0:  # nothing is known but the proxy
            return self._race(trial, outcome.scores, Step(0, 0, self.standings.value_at(outcome.scores, 0)), None)
        value, constraints = self.judge.value(scores), self.judge.constraints(scores)
        if trial.rung >= self.standings.last:
            return tell(self._lead, trial.number, "complete", value, constraints=constraints)
        step = Step(trial.rung, sum(len(s.documents) for s in scores), value)
        return self._race(trial, scores, step, constraints)

    def _race(self, trial: Trial, scores: Scores, step: Step, constraints: tuple[float, ...] | None) -> Trial:
        """Let the trial go on, or stop it."""
        contender = Contender(trial.number, trial.rung, step.value, scores, trial.params)
        decision = self._racer.decide(contender, self.standings)
        if isinstance(decision, Promote) and not self._ending.allows(trial, decision.rung, self._asked):
            decision = Stop(OVERDRAWN)
        if isinstance(decision, Promote):
            return self._promote(trial, decision, step)
        return self._stop(trial, decision, step, constraints)

    def _promote(self, trial: Trial, decision: Promote, step: Step) -> Trial:
        fault_point("controller.promoting")
        promoted = self._store.trials.promote(self._lead, trial.number, decision.rung, step)
        fault_point("controller.promoted")
        if promoted.evaluation_id is not None:
            self._announce([promoted.evaluation_id])
        return promoted

    def _stop(self, trial: Trial, decision: Stop, step: Step, constraints: tuple[float, ...] | None) -> Trial:
        estimate = decision.estimate
        if estimate is None:
            estimate = self.standings.estimate(step.value, step.rung)
        return self._store.trials.tell(
            self._lead,
            trial.number,
            "pruned",
            None,
            decision.why,
            estimate=estimate,
            constraints=constraints,
            step=step,
        )

    def _raced(self, number: int) -> bool:
        starts = self._search.starts
        return number >= len(starts) or not is_baseline(starts[number].origin)

    def _fill(self) -> None:
        """Keep `parallel` trials open."""
        limits = self._search.spec.search
        while self._open - self._held < self._search.parallel and self._ending.reached(self._asked) is None:
            number = self._next
            if number < len(self._search.starts):
                start = self._search.starts[number]
                self._add(number, start.origin, Proposal(start.params, start.recipe))
                self._search.strategy.reserve(number, Proposal(start.params, start.recipe))
                continue
            if self._held:  # many would be proposed while nothing is told: better none than blindly
                return
            began = time.perf_counter()
            proposal = self._search.strategy.propose(number)
            self._search.on_asked(time.perf_counter() - began)
            fault_point("controller.proposed")
            if isinstance(proposal, Wait) and self._open:
                return
            if isinstance(proposal, Wait | Exhausted):
                self._ending.exhaust(proposal)  # waiting with nothing open would wait for ever
                return
            self._add(number, f"{limits.strategy}:{proposal.by}" if proposal.by else limits.strategy, proposal)
            if proposal.recipe is None:
                return  # told on the next round, before another is proposed

    def _add(self, number: int, origin: str, proposal: Proposal) -> None:
        recipe = proposal.recipe
        digest = recipe.digest(self._search.study.setup["fingerprints"]) if recipe else None
        rung = self._racer.entry(number) if self._raced(number) else self.standings.last
        new = NewTrial(number, origin, proposal.params, recipe, digest, proposal.why, rung)
        trial = self._store.trials.add(self._lead, new)
        self._proposals[number] = proposal
        self._ending.note(trial)
        fault_point("controller.added")
        self._next += 1
        self._open += 1
        if trial.evaluation_id is not None:
            self._announce([trial.evaluation_id])
            fault_point("controller.announced")

    def _learn(self, trial: Trial) -> None:
        """Let the strategy, and a judge who compares trials with each other, know of a trial that is told."""
        self._ending.learn(trial)
        proposal, several = self._proposals.pop(trial.number), None
        if self.judge.relative and trial.state == "complete":
            scores = scores_of(self._store, trial)
            self.judge.learn(scores)
            several = self.judge.values(scores) if self._search.spec.objective == "pareto" else None
        pruned = trial.estimate is not None  # also where it was scored in full since
        value = trial.estimate if pruned else trial.value
        known = (trial.number, trial.origin, proposal.params, proposal.recipe, value, pruned)
        read = None if value is None or trial.state not in SCORED else partial(self.standings.told, trial)
        judged_by = (trial.constraints or (), several, read, self.standings.seconds(trial))
        self._search.strategy.observe(Observation(*known, *judged_by))

    def _proposal(self, trial: Trial) -> Proposal:
        begun = f"{self._search.spec.search.strategy}:"
        by = trial.origin.removeprefix(begun) if trial.origin.startswith(begun) else ""  # not that of a start
        if trial.evaluation_id is None:
            return Proposal(trial.params, None, trial.why, by)
        return Proposal(trial.params, self._store.evaluations.recipe(trial.evaluation_id), by=by)
