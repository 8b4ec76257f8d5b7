"""How far apart two good candidates of a study seem on its documents though they may be alike."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import median

from db.records import Trial
from evaluation.result import TaskScore
from evaluation.statistics import Measure, aggregations_of, paired_interval
from search.seeds import derive

RIVALS = 3  # with one alone, a near copy of the best would say that there is no noise
_DRAWS = 400  # of the bootstrap: the standard error is then right to 4 %


class Noise:
    """The standard error of the difference between the best complete trial and those next to it.

    Args:
        scores: of a complete trial, on all search documents.
    """

    def __init__(self, seed: int, scores: Callable[[Trial], Sequence[TaskScore]]) -> None:
        self._seed, self._scores = seed, scores
        self._of: tuple[int, ...] = ()
        self._known: float | None = None

    def between(self, best: Sequence[Trial], measure: Measure) -> float | None:
        """The median over the rivals; None where there is none, or a task's value is no function of sums of its items.

        Args:
            best: the best complete trials of different recipes, the best first; more than `RIVALS` + 1 are left out.
        """
        some = best[: RIVALS + 1]
        numbers = tuple(trial.number for trial in some)
        if numbers != self._of:
            ours = [self._scores(trial) for trial in some]
            known = {**aggregations_of(ours[0] if ours else ()), **measure.aggregations}  # none, where nobody races
            if ours and any(score.task not in known for score in measure.counting(ours[0])):
                self._of, self._known = numbers, None
                return None
            measure = replace(measure, aggregations=known)
            seeds = [derive(self._seed, "noise", number) for number in numbers]
            found = [
                paired_interval(measure, ours[0], theirs, _DRAWS, seed).stderr
                for theirs, seed in zip(ours[1:], seeds[1:], strict=True)
            ]
            self._of, self._known = numbers, median(found) if found else None
        return self._known
