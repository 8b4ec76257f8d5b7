"""One number for a candidate: how its task scores are combined. Pure: no torch, no lm-eval.

Larger is always better: a metric of which less is better (perplexity) enters with its sign turned.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from evaluation.result import TaskScore
from merging.errors import InvalidStudy

Kind = Literal["mean", "worst"]


def objective(kind: Kind, scores: Sequence[TaskScore], weights: Mapping[str, float]) -> float:
    """The candidate's objective.

    Args:
        kind: `mean`, the weighted mean over the tasks; `worst`, the lowest of the tasks that carry weight.
        weights: each task's share; tasks of weight 0 count for nothing.

    Raises:
        InvalidStudy: no task carries weight.
    """
    return float(combine(kind, [oriented(s.value, s) for s in scores], [weights[s.task] for s in scores]))


def oriented(value: Any, score: TaskScore) -> Any:
    """The value of a task with the sign that makes larger better; a number or an array of them."""
    return value if score.higher_is_better else -value


def combine(kind: Kind, values: Sequence[Any], weights: Sequence[float]) -> Any:
    """Combine oriented values, one a task: numbers, or arrays of one shape (then element by element)."""
    weighted = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight > 0]
    if not weighted:
        raise InvalidStudy("evaluation.tasks", None, "no task has a weight above 0", "give at least one task a weight")
    if kind == "worst":
        worst = weighted[0][0]
        for value, _ in weighted[1:]:
            worst = np.minimum(worst, value)
        return worst
    return sum(value * weight for value, weight in weighted) / sum(weight for _, weight in weighted)
