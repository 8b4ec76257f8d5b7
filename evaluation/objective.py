"""One number for a candidate: how its task scores are combined. Pure: no torch, no lm-eval, numpy only when called.

Larger is always better: a metric of which less is better (perplexity) enters with its sign turned.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from evaluation.result import TaskScore
from merging.errors import InvalidStudy

Kind = Literal["mean", "worst", "normalized_mean", "borda", "borda_documents", "kemeny", "pareto"]
Scale = tuple[float, float]  # (offset, scale) of a task: its oriented value v counts as (v - offset) / scale

RANKED: tuple[Kind, ...] = ("borda", "borda_documents", "kemeny")  # a candidate's number depends on the others'
RELATIVE: tuple[Kind, ...] = (*RANKED, "pareto")  # who is best can be said only of all candidates together
CLIP = (0.0, 1.2)  # how far a task may count where tasks are mixed to recommend one of a front
SMALLEST_STEP = 0.05  # the least that base and best expert count as apart, in units of max(1, |base|)


def objective(
    kind: Kind, scores: Sequence[TaskScore], weights: Mapping[str, float], scales: Mapping[str, Scale] | None = None
) -> float:
    """The candidate's objective.

    Args:
        kind: `mean`, the weighted mean over the tasks; `worst`, the lowest of the tasks that carry weight;
            `normalized_mean`, the weighted mean of the tasks' scaled values. The kinds that compare candidates with
            each other (ranks, Pareto) have no value of one candidate: for them this is the plain weighted mean.
        weights: each task's share; tasks of weight 0 count for nothing.
        scales: of the tasks that are scaled, from `scales_between`.

    Raises:
        InvalidStudy: no task carries weight.
    """
    values = [scaled(oriented(s.value, s), s.task, scales or {}) for s in scores]
    return float(combine(kind, values, [weights.get(s.task, 0.0) for s in scores]))


def oriented(value: Any, score: TaskScore) -> Any:
    """The value of a task with the sign that makes larger better; a number or an array of them."""
    return value if score.higher_is_better else -value


def scaled(value: Any, task: str, scales: Mapping[str, Scale]) -> Any:
    """An oriented value in its task's scale: 0 as good as the offset, 1 a whole scale better. Arrays too."""
    if task not in scales:
        return value
    offset, scale = scales[task]
    return (value - offset) / scale


def combine(kind: Kind, values: Sequence[Any], weights: Sequence[float]) -> Any:
    """Combine oriented values, one a task: numbers, or arrays of one shape (then element by element)."""
    weighted = [(value, weight) for value, weight in zip(values, weights, strict=True) if weight > 0]
    if not weighted:
        raise InvalidStudy("evaluation.tasks", None, "no task has a weight above 0", "give at least one task a weight")
    if kind == "worst":
        import numpy as np  # the command line reads study files, and with them `Kind`, without it

        worst = weighted[0][0]
        for value, _ in weighted[1:]:
            worst = np.minimum(worst, value)
        return worst
    return sum(value * weight for value, weight in weighted) / sum(weight for _, weight in weighted)


def anchored(base: Sequence[TaskScore], experts: Sequence[Sequence[TaskScore]]) -> dict[str, Scale]:
    """Scales for values that are mixed within `CLIP`: 0 is the worse and 1 the better of the base and an expert.

    Where an expert gained, as `scales_between`. Where none did, the task is one to keep: 1 is the base and 0 the worst
    expert, so that what experts lost there counts, which a clip at the base would hide.

    Args:
        base, experts: as in `scales_between`.
    """
    found = scales_between(base, experts)
    for score in base:
        values = [float(oriented(s.value, s)) for scores in experts for s in scores if s.task == score.task]
        top, (_, step) = float(oriented(score.value, score)), found[score.task]
        if max(values) - top < step:  # less than the smallest step
            scale = max(top - min(values), step)
            found[score.task] = (top - scale, scale)
    return found


def scales_between(base: Sequence[TaskScore], experts: Sequence[Sequence[TaskScore]]) -> dict[str, Scale]:
    """Scales in which a task's value is 0 for the base and 1 for its best expert.

    Where the best expert is hardly better than the base, or worse, 1 is `SMALLEST_STEP` x max(1, |base|) above the
    base: else noise, divided by next to nothing, would decide the mean. These are constants of a study: the
    bootstrap does not resample them.

    Args:
        base: the scores of the base model.
        experts: those of each expert, on the same tasks.
    """
    found: dict[str, Scale] = {}
    for score in base:
        offset = float(oriented(score.value, score))
        best = max(float(oriented(s.value, s)) for scores in experts for s in scores if s.task == score.task)
        found[score.task] = (offset, max(best - offset, SMALLEST_STEP * max(1.0, abs(offset))))
    return found
