"""How much better one candidate is than another on the same documents, and how much of that may be luck."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from evaluation.constraints import right_or_wrong
from evaluation.result import TaskScore
from evaluation.statistics import Measure, aggregations_of, paired_interval
from search.seeds import derive

_DRAWS = 2000  # of the bootstrap: the standard error is then right to 2 %
Scores = Sequence[TaskScore]


@dataclass(frozen=True)
class Gain:
    """By how much one candidate is better, larger being better, and the standard error of that."""

    difference: float
    stderr: float

    def is_luck(self, margin: float) -> bool:
        """Whether it is below so many standard errors."""
        return self.difference < margin * self.stderr


def gain_of(measure: Measure, ours: Scores, theirs: Scores, seed: int) -> Gain | None:
    """What the first has over the second; None where a task's value is no function of sums of its items."""
    known = {**aggregations_of(ours), **measure.aggregations}
    if any(score.task not in known for score in measure.counting(ours)):
        return None
    found = paired_interval(replace(measure, aggregations=known), ours, theirs, _DRAWS, derive(seed, "margin"))
    return Gain(found.value, found.stderr)


def room_above(measure: Measure, scores: Scores, seed: int) -> Gain | None:
    """What a candidate that has every document right has over this one; None where documents of a task that counts are
    not right or wrong.
    """
    counting = measure.counting(scores)
    if not all(map(right_or_wrong, counting)):
        return None
    return gain_of(measure, [_all_right(score) for score in counting], counting, seed)


def _all_right(score: TaskScore) -> TaskScore:
    item = float(score.higher_is_better)
    return score.model_copy(update={"items": (item,) * len(score.items), "value": item})
