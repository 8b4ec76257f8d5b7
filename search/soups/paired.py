"""How two soups compare document by document, by the study's own objective."""

from collections.abc import Sequence

from evaluation.objective import oriented
from evaluation.result import TaskScore
from evaluation.statistics import Measure, aggregations_of, p_worse, paired_interval
from merging.errors import InvalidStudy
from search.judge import Judge
from search.seeds import derive
from search.strategies.contract import Observation

_DRAWS = 1_000  # of a standard error: puts it within some 2 %

Scores = Sequence[TaskScore]


class Paired:
    """Paired comparisons.

    Args:
        judge: the study's, with nothing told; None: the objective is the plain mean of all tasks.
        seed: with the two soups' own names it keys the draws: whatever else was tried, the same two compare the same.
    """

    def __init__(self, judge: Judge | None, seed: int) -> None:
        self._judge, self._seed = judge, seed

    def refer(self, observation: Observation) -> None:
        """Take note of a trial that the objective may compare with."""
        if self._judge is not None and observation.origin in self._judge.needs and observation.scores is not None:
            self._judge.refer(observation.origin, observation.scores())

    def measure(self, scores: Scores) -> Measure:
        """The study's objective on whatever documents.

        Raises:
            InvalidStudy: a task that counts has no value of fewer documents (f1).
        """
        found = self.loosely(scores)
        lacking = next((s for s in found.counting(scores) if s.task not in found.aggregations), None)
        if lacking is not None:
            problem = f"tests documents, and {lacking.task} ({lacking.metric}) has no value of a few of them"
            raise InvalidStudy("search.options", None, problem, "use rule: mean with margin: 0, or another metric")
        return found

    def loosely(self, scores: Scores) -> Measure:
        """As `measure`, but where a task has no value of fewer documents it is left without an aggregation."""
        known = aggregations_of(scores)
        if self._judge is not None:
            return self._judge.measure(known)
        return Measure("mean", {score.task: 1.0 for score in scores}, known)

    def p_better(self, ours: Scores, theirs: Scores, names: tuple[object, object]) -> float:
        """One-sided p: the chance that ours would be so much better if both were alike. Raises as `measure`."""
        return p_worse(self.measure(theirs), theirs, ours, seed=derive(self._seed, "better", *names))

    def stderr(self, ours: Scores, theirs: Scores, names: tuple[object, object]) -> float:
        """The standard error of the difference, documents resampled for both alike. Raises as `measure`."""
        seed = derive(self._seed, "stderr", *names)
        return paired_interval(self.measure(theirs), ours, theirs, draws=_DRAWS, seed=seed).stderr


def worst_fall(ours: Scores, theirs: Scores) -> tuple[float, str]:
    """How far ours lie below theirs in the task where that is most, and its name; less than 0: they are above."""
    before = {score.task: float(oriented(score.value, score)) for score in theirs}
    falls = [(before[s.task] - float(oriented(s.value, s)), s.task) for s in ours if s.task in before]
    return max(falls, default=(float("-inf"), ""))
