"""Before the holdout is read: the best of those that were stopped early are scored on all search documents.

A stopped trial's estimate is uncertain, and the best of many estimates is flattered. So nobody wins on an estimate: who
could still win is scored in full, and the winner is chosen among those that were.

Of the starts the best by all that is known is scored in full, however the others stand: what wins is never worse
than what the study began with, as far as that was scored.

How many others: a twentieth of the trials, four at least, which costs a few percent of full scoring; the true best is
rarely further down, since estimates that are wrong by their usual error change the order of neighbours. After
`one_shot`, where nobody was promoted and the estimates are the roughest, twice as many.
"""

from collections.abc import Sequence

from db.faults import fault_point
from db.records import Lead, Study, Trial
from db.store import Store
from evaluation.result import Scored
from evaluation.statistics import p_worse
from search.judge import Judge, violation
from search.seeds import derive
from search.standings import Standings, best_of, judged
from search.starts.start import is_start
from search.study import StudySpec
from search.twins import searched

COULD_WIN = 0.05  # the p of the one-sided paired test below which a stopped trial is surely worse than the best
LOOKED_AT = 4  # times as many as are scored: below them on the list there is next to nothing to be found


class Rescoring:
    """The full scoring of one study's stopped trials that could still win.

    Args:
        judge: with its references.
        standings: of the search that is over.
    """

    def __init__(self, store: Store, lead: Lead, study: Study, judge: Judge, standings: Standings) -> None:
        self._store, self._lead, self._study, self._judge, self._standings = store, lead, study, judge, standings
        self._chosen: tuple[int, ...] | None = None

    def step(self) -> tuple[int, ...]:
        """Tell what is scored; ids of the evaluations that are still to be done, none when all is done."""
        trials = {t.number: t for t in self._store.trials.all(self._study.id)}
        if self._chosen is None:
            self._chosen = tuple(t.number for t in self._could_win(tuple(trials.values())))
        found = (self._rescore(trials[number]) for number in self._chosen)
        return tuple(sorted(id_ for id_ in found if id_ is not None)) or self._best_start()

    def _best_start(self) -> tuple[int, ...]:
        """The evaluation of the best start that is left to be done: one after the other, until the best is complete."""
        strategy = self._study.spec["search"]["strategy"]
        unscored: set[int] = set()  # they have no full score, and will have none
        while True:
            trials = (t for t in self._store.trials.all(self._study.id) if t.number not in unscored)
            starts = [t for t in trials if is_start(t.origin, strategy) and t.state in ("complete", "pruned")]
            best = min(starts, key=_known, default=None)
            if best is None or best.state == "complete":
                return ()
            if (waiting := self._rescore(best)) is not None:
                return (waiting,)
            after = self._store.trials.get(self._study.id, best.number)
            if after is None or after.state == "pruned":
                unscored.add(best.number)

    def _rescore(self, trial: Trial) -> int | None:
        """Complete one trial; the id of its evaluation while that is not done."""
        if trial.state == "complete" or trial.evaluation_id is None:
            return None
        there = self._store.evaluations.get(trial.evaluation_id)
        evaluation, _ = self._store.evaluations.want(
            self._study.id, there.recipe, there.recipe_digest, "search", self._standings.last
        )
        if evaluation.outcome is None:
            return evaluation.id
        fault_point("controller.rescoring")
        if isinstance(evaluation.outcome, Scored):  # else it stays pruned
            scores = judged(evaluation.outcome.scores)
            value, constraints = self._judge.value(scores), self._judge.constraints(scores)
            self._store.trials.rescore(self._lead, trial.number, evaluation.id, value, constraints)
        return None

    def _could_win(self, trials: Sequence[Trial]) -> list[Trial]:
        """The same trials again after a restart, however many of them are rescored by then."""
        spec = StudySpec.model_validate(self._study.spec)
        most = how_many(spec, len(searched(trials)))
        best = best_of(t for t in trials if t.estimate is None and self._standings.counts(t))
        raced = [t for t in trials if t.estimate is not None and t.state in ("pruned", "complete")]
        chosen: list[Trial] = []
        for trial in sorted(raced, key=_promise)[: LOOKED_AT * most]:
            begun = trial.state == "complete"
            if begun or best is None or violation(best) > violation(trial) or not self._surely_worse(trial, best, spec):
                chosen.append(trial)
            if len(chosen) == most:
                break
        return chosen

    def _surely_worse(self, trial: Trial, best: Trial, spec: StudySpec) -> bool:
        ours, theirs = self._standings.scores(trial), self._standings.scores(best)
        if not ours:  # stopped by the proxy: its estimate is all there is
            return (trial.estimate or 0.0) < (best.value or 0.0)
        seed = derive(spec.search.seed, "rescore", trial.number, best.number)
        return p_worse(self._standings.measure, ours, theirs, seed=seed) < COULD_WIN


def _promise(trial: Trial) -> tuple[float, float, int]:
    """Sorts the most promising first. One that is rescored keeps its place or gains one, whatever was found."""
    return violation(trial) if trial.state == "pruned" else 0.0, -(trial.estimate or 0.0), trial.number


def _known(trial: Trial) -> tuple[float, float, int]:
    """Sorts the best first by what is known: the score of those that have one, the estimate of the others."""
    found = trial.estimate if trial.value is None else trial.value
    return violation(trial), -(found or 0.0), trial.number


def how_many(spec: StudySpec, tried: int) -> int:
    """The most stopped trials that are scored in full at the end, after so many trials."""
    trials = min(tried, spec.search.trials)
    return max(8, trials // 10) if spec.racing == "one_shot" else max(4, trials // 20)
