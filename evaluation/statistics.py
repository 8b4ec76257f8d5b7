"""How sure a difference between candidates is: bootstrap intervals and permutation tests.

Everything is paired and stratified: documents are resampled within their task, two candidates are compared on the
same documents, and the statistic is the study's objective. Seeds make every result repeat. No torch, no lm-eval.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.objective import Kind, combine, oriented
from evaluation.resampling import Resampler, resampler
from evaluation.result import TaskScore
from merging.errors import InvalidInput

Floats = NDArray[np.float64]

_BLOCK = 2_000_000  # numbers a block of draws may hold: bounds the memory
_SLOW_DRAWS = 1_000  # where an aggregation must be called once a draw


@dataclass(frozen=True)
class Aggregation:
    """How a task makes one value of its documents' items. `name` is lm-eval's; `function` lm-eval's own code."""

    name: str
    function: Callable[[Sequence[Any]], float]


@dataclass(frozen=True)
class Interval:
    """A value with its percentile bootstrap interval of 95% and its bootstrap standard error."""

    value: float
    low: float
    high: float
    stderr: float


@dataclass(frozen=True)
class Difference:
    """First candidate minus second, larger being better, with the two-sided p of the paired permutation test."""

    interval: Interval
    p: float


@dataclass(frozen=True)
class Measure:
    """The objective of a study, as the statistics need it.

    Attributes:
        weights: each task's share, as in `objective`.
        aggregations: of each task; `Suite.aggregations()` has them.
    """

    kind: Kind
    weights: Mapping[str, float]
    aggregations: Mapping[str, Aggregation]


def bootstrap(measure: Measure, scores: Sequence[TaskScore], draws: int = 10_000, seed: int = 0) -> Interval:
    """The objective of one candidate with its interval.

    Args:
        draws: resamples; at most 1,000 where a task's aggregation has no closed form.
    """
    tasks = _weighted(measure, scores)
    samplers = [_resampler(measure, task) for task in tasks]
    found = [
        _combined(measure, tasks, [s.resampled(c) for s, c in zip(samplers, counts, strict=True)])
        for counts in _counts(tasks, _draws(samplers, draws), seed)
    ]
    return _interval(_observed(measure, tasks, samplers), np.concatenate(found))


def compare(
    measure: Measure,
    first: Sequence[TaskScore],
    second: Sequence[TaskScore],
    draws: int = 10_000,
    seed: int = 0,
) -> Difference:
    """The difference between two candidates on the same documents, with interval and permutation test.

    Args:
        draws: resamples, and permutations; at most 1,000 where a task's aggregation has no closed form.

    Raises:
        InvalidInput: the candidates were not scored on the same documents.
    """
    require_same_documents(first, second)
    return Difference(
        paired_interval(measure, first, second, draws, seed), permutation_p(measure, first, second, draws, seed)
    )


def paired_interval(
    measure: Measure, first: Sequence[TaskScore], second: Sequence[TaskScore], draws: int = 10_000, seed: int = 0
) -> Interval:
    """Objective of the first minus that of the second; both see the same resampled documents."""
    require_same_documents(first, second)
    tasks = _weighted(measure, first)
    pairs = [_resamplers(measure, task, second) for task in tasks]
    flat = [sampler for pair in pairs for sampler in pair]
    found = []
    for counts in _counts(tasks, _draws(flat, draws), seed):
        ours, theirs = (
            _combined(measure, tasks, [pair[i].resampled(c) for pair, c in zip(pairs, counts, strict=True)])
            for i in (0, 1)
        )
        found.append(ours - theirs)
    ours_now, theirs_now = (_observed(measure, tasks, [pair[i] for pair in pairs]) for i in (0, 1))
    return _interval(ours_now - theirs_now, np.concatenate(found))


def permutation_p(
    measure: Measure, first: Sequence[TaskScore], second: Sequence[TaskScore], draws: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p of the paired permutation test: (1 + draws at least as far apart) / (draws + 1).

    If the candidates are alike, swapping their items on any document changes nothing; a draw swaps each with chance ½.
    """
    require_same_documents(first, second)
    tasks = _weighted(measure, first)
    pairs = [_resamplers(measure, task, second) for task in tasks]
    total = _draws([sampler for pair in pairs for sampler in pair], draws)
    ours, theirs = (_observed(measure, tasks, [pair[i] for pair in pairs]) for i in (0, 1))
    # sums in another order differ in the last bits, and a tie must count as one
    threshold = abs(ours - theirs) - 1e-9 * max(1.0, abs(ours), abs(theirs))
    as_far = 0
    for masks in _masks(tasks, total, seed):
        swapped = [pair[0].swapped(pair[1], mask) for pair, mask in zip(pairs, masks, strict=True)]
        values = [_combined(measure, tasks, [both[i] for both in swapped]) for i in (0, 1)]
        as_far += int(np.sum(np.abs(values[0] - values[1]) >= threshold))
    return (1 + as_far) / (total + 1)


def require_same_documents(first: Sequence[TaskScore], second: Sequence[TaskScore]) -> None:
    """Raise InvalidInput unless two candidates were scored on the same tasks, metrics and documents."""
    one, other = ({(s.task, s.metric): s.documents for s in scores} for scores in (first, second))
    for key in sorted(one.keys() | other.keys()):
        if one.get(key) != other.get(key):
            raise InvalidInput(
                f"scores.{key[0]}", key[1], "was not scored on the same documents", "score both on the same part"
            )


def _weighted(measure: Measure, scores: Sequence[TaskScore]) -> list[TaskScore]:
    """The tasks that count, so that a slow metric that is only reported costs nothing; all if none counts."""
    return [s for s in scores if measure.weights[s.task] > 0] or list(scores)


def _resampler(measure: Measure, score: TaskScore) -> Resampler:
    aggregation = measure.aggregations[score.task]
    return resampler(aggregation.name, aggregation.function, score.items)


def _resamplers(measure: Measure, score: TaskScore, others: Sequence[TaskScore]) -> tuple[Resampler, Resampler]:
    (other,) = (s for s in others if s.task == score.task)
    return _resampler(measure, score), _resampler(measure, other)


def _draws(samplers: Sequence[Resampler], draws: int) -> int:
    return draws if all(s.fast for s in samplers) else min(draws, _SLOW_DRAWS)


def _combined(measure: Measure, tasks: Sequence[TaskScore], values: Sequence[Floats]) -> Floats:
    """The objective of each draw; `values`: [draws] a task."""
    signed = [oriented(value, task) for value, task in zip(values, tasks, strict=True)]
    combined: Floats = combine(measure.kind, signed, [measure.weights[task.task] for task in tasks])
    return combined


def _observed(measure: Measure, tasks: Sequence[TaskScore], samplers: Sequence[Resampler]) -> float:
    return float(_combined(measure, tasks, [s.resampled(np.ones((1, s.size), np.int64)) for s in samplers])[0])


def _blocks(tasks: Sequence[TaskScore], draws: int) -> Iterator[int]:
    """Sizes of blocks of draws that fit the memory; their sum is `draws`."""
    rows = max(1, _BLOCK // sum(len(task.documents) for task in tasks))
    for start in range(0, draws, rows):
        yield min(rows, draws - start)


def _counts(tasks: Sequence[TaskScore], draws: int, seed: int) -> Iterator[list[NDArray[np.int64]]]:
    """How often each document is in each resample: one array [block, documents] a task."""
    streams = [(np.random.default_rng([seed, 0, i]), len(task.documents)) for i, task in enumerate(tasks)]
    for rows in _blocks(tasks, draws):
        yield [rng.multinomial(n, np.full(n, 1 / n), size=rows) for rng, n in streams]


def _masks(tasks: Sequence[TaskScore], draws: int, seed: int) -> Iterator[list[NDArray[np.bool_]]]:
    """Which documents are swapped in each permutation: one array [block, documents] a task."""
    streams = [(np.random.default_rng([seed, 1, i]), len(task.documents)) for i, task in enumerate(tasks)]
    for rows in _blocks(tasks, draws):
        yield [rng.random((rows, n)) < 0.5 for rng, n in streams]


def _interval(value: float, found: Floats) -> Interval:
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(value, float(low), float(high), float(np.std(found, ddof=1)))
