"""How a study's trials stand: its rungs, the best complete trial, and what each trial was worth on each rung.

All of it is found from rows, and again after a restart. Scores on fewer documents than a trial has are computed
from its items, so that the baselines, scored once in full, can be compared with anybody on any rung.
"""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, linear_regression

from db.records import DocumentSet, Study, Trial
from db.store import Store
from evaluation.objective import oriented
from evaluation.result import Part, Scored, TaskScore
from evaluation.spec import PROXY
from evaluation.statistics import Measure, closed_aggregation, restricted
from search.judge import Judge, violation
from search.past import PastItems
from search.predecessors import KEY, Predecessors
from search.racing.contract import Incumbent, Past
from search.starts.start import is_baseline
from search.twins import is_lossy, is_twin

Scores = tuple[TaskScore, ...]
LEAST_FOR_A_LINE = 3  # proxies, all different


class Standings:
    """The standings of one study; the racing policies' `Field`.

    Attributes:
        rungs: how many the search documents have.
        proxied: whether the first of them is the proxy's, where trials have a value of another kind.
        measure: the objective on whatever documents a trial was scored on.
    """

    def __init__(self, store: Store, study: Study, judge: Judge) -> None:
        self._store, self._judge = store, judge
        self._sets = search_sets(store.studies.documents(study.id))
        self.rungs = max((len(found.sizes) for found in self._sets.values()), default=1)
        names: Mapping[str, str] = study.setup.get("aggregations", {})
        self.proxied: bool = study.setup.get("proxy", False)
        self._aggregations = {task: closed_aggregation(name) for task, name in names.items()}
        self._lossy = is_lossy(study)
        self._complete: dict[int, Trial] = {}
        self._values: dict[int, dict[int, float]] = {}  # by rung, by number
        self._incumbent: Incumbent | None = None
        self._past = PastItems(store, self._sets, max(0, self.rungs - 2))
        self._predecessors = Predecessors(store, self._sets, study.setup.get(KEY, ()), self.value_at)

    @property
    def last(self) -> int:
        """The rung of all search documents."""
        return self.rungs - 1

    @property
    def measure(self) -> Measure:
        """See the class; its scales are known once the judge has its references."""
        return self._judge.measure(self._aggregations)

    def counts(self, trial: Trial) -> bool:
        """Whether trials are stopped in comparison with it: not where their experts lost something and its did not."""
        return not self._lossy or not (is_baseline(trial.origin) or is_twin(trial))

    def note(self, trial: Trial) -> None:
        """Take note of a trial as it is now: added, promoted, told or rescored."""
        if not self.counts(trial):
            return
        for step in trial.steps:
            self._values.setdefault(step.rung, {})[trial.number] = step.value
        if trial.state == "complete":
            self._complete[trial.number] = trial

    @property
    def sets(self) -> Mapping[str, DocumentSet]:
        """The search documents of each task that trials are judged by."""
        return self._sets

    @property
    def best(self) -> tuple[Trial, ...]:
        """The complete trials that meet the constraints, one for each recipe, the best first."""
        unique: dict[int | None, Trial] = {}
        for trial in self._complete.values():
            if not violation(trial) and (trial.number <= unique.get(trial.evaluation_id, trial).number):
                unique[trial.evaluation_id] = trial
        return tuple(sorted(unique.values(), key=lambda t: (-(t.value or 0.0), t.number)))

    @property
    def incumbent(self) -> Incumbent | None:
        """The best complete trial that meets the constraints, of equals the first; None if there is none."""
        best = best_of(t for t in self._complete.values() if not violation(t))
        if best is None:
            return None
        if self._incumbent is None or self._incumbent.number != best.number:
            self._incumbent = Incumbent(best.number, best.value or 0.0, self.scores(best))
        return self._incumbent

    def seen(self, rung: int) -> Mapping[int, float]:
        """The objective of every trial on that rung's documents, by number, as far as it was scored on them."""
        for number, trial in self._complete.items():
            if number not in self._values.get(rung, {}):
                scores = all_scores(self._store, trial)  # many documents: read once for all rungs
                for below in range(self.last):
                    self._values.setdefault(below, {}).setdefault(number, self.value_at(scores, below))
        return self._values.get(rung, {})

    def past(self, rung: int) -> Past:
        """The complete trials' items on the documents of a rung below the last."""
        return self._past.at(rung, self._complete, self.seen(rung))

    def predecessors(self, rung: int) -> Past | None:
        """The same of candidates of earlier studies over the same documents; None: there are none."""
        return self._predecessors.at(rung)

    def value_at(self, scores: Sequence[TaskScore], rung: int) -> float:
        """The objective on that rung's documents of a candidate that was scored on more.

        Raises:
            InvalidInput: it was not scored on them.
        """
        if self.proxied and rung == 0:
            return next(float(oriented(s.value, s)) for s in scores if s.task == PROXY)
        documents = {task: found.at(rung) for task, found in self._sets.items()}
        return self._judge.value(restricted(scores, documents, self._aggregations))

    def estimate(self, value: float, rung: int) -> float:
        """What a trial may be worth on all search documents, from its value on a rung.

        The incumbent's value there, corrected by how the two differ on the documents that both were scored on: what
        makes those documents harder or easier than the rest is the same for both and cancels out. From the proxy's
        rung, what the line through the complete trials says.
        """
        if self.proxied and rung == 0:
            return self._by_proxy(value)
        best = self.incumbent
        return value if best is None else best.value + value - self.value_at(best.scores, rung)

    def _by_proxy(self, value: float) -> float:
        """The objective on the line that fits the complete trials' proxies best; their mean where there is no line."""
        values = {number: trial.value or 0.0 for number, trial in self._complete.items()}
        proxies = self.seen(0)
        if len({proxies[number] for number in values}) < LEAST_FOR_A_LINE:
            return fmean(values.values()) if values else 0.0
        line = linear_regression([proxies[number] for number in values], list(values.values()))
        return line.slope * value + line.intercept

    def told(self, trial: Trial) -> Scores:
        """The scores that the strategy was told of: of a stopped trial that was scored in full since, those before."""
        found = self.scores(trial)
        if trial.estimate is None or trial.rung >= self.last or not trial.steps:
            return found
        documents = {task: one.at(trial.steps[-1].rung) for task, one in self._sets.items()}
        return restricted(found, documents, self._aggregations)

    def seconds(self, trial: Trial) -> float | None:
        """Seconds that the trial took to build, measure and score, up to the rung at which it was told; None: nothing
        was computed for it.
        """
        if trial.evaluation_id is None:
            return None
        stopped = trial.estimate is not None and trial.steps  # it may have been scored in full since
        return self._store.evaluations.seconds(trial.evaluation_id, trial.steps[-1].rung if stopped else trial.rung)

    def scores(self, trial: Trial) -> Scores:
        """The scores of a trial's last evaluation, on the documents of its rung."""
        return scores_of(self._store, trial)


def search_sets(documents: Mapping[tuple[str, Part], DocumentSet]) -> dict[str, DocumentSet]:
    """The search documents of each task that trials are judged by."""
    return {task: found for (task, part), found in documents.items() if part == "search" and task != PROXY}


def all_scores(store: Store, trial: Trial) -> Scores:
    """The scores of a trial that was scored, the proxy's included."""
    assert trial.evaluation_id is not None, f"trial {trial.number} was not evaluated"
    outcome = store.evaluations.get(trial.evaluation_id).outcome
    assert isinstance(outcome, Scored), f"trial {trial.number} was not scored"
    return outcome.scores


def scores_of(store: Store, trial: Trial) -> Scores:
    """The scores of a trial that was scored, without the proxy's."""
    return judged(all_scores(store, trial))


def judged(scores: Sequence[TaskScore]) -> Scores:
    """The scores that trials are judged by: all but the proxy's."""
    return tuple(s for s in scores if s.task != PROXY)


def best_of(trials: Iterable[Trial]) -> Trial | None:
    """The complete trial of the highest value, those beyond the constraints last; of equals the first."""
    complete = [t for t in trials if t.value is not None]
    return min(complete, key=lambda t: (violation(t), -(t.value or 0.0), t.number), default=None)
