"""How sure a value and a difference are: stratified bootstrap intervals, and the comparison of two candidates."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evaluation.result import TaskScore
from evaluation.statistics.exact import mcnemar_p, wilcoxon_p
from evaluation.statistics.measure import Floats, Measure, blocks, limited, pairs_of, require_same_documents
from evaluation.statistics.permutation import SLOW_DRAWS, permutation_p

REMEMBERED = 6_000_000  # counts of resamples that are kept for the next candidate, two bytes each
Counts = tuple[NDArray[np.uint16] | NDArray[np.int64], ...]


@dataclass(frozen=True)
class Interval:
    """A value with its percentile bootstrap interval of 95% and its bootstrap standard error."""

    value: float
    low: float
    high: float
    stderr: float


@dataclass(frozen=True)
class Difference:
    """First candidate minus second, larger being better, with two-sided p-values of paired tests.

    Attributes:
        p: of the permutation test of the objective: the one to go by.
        mcnemar: of the exact test over all documents alike, of the tasks that count; None where not every item is
            right or wrong.
        wilcoxon: of the signed-rank test of the same documents; None where one has no value alone.
    """

    interval: Interval
    p: float
    mcnemar: float | None = None
    wilcoxon: float | None = None


def bootstrap(measure: Measure, scores: Sequence[TaskScore], draws: int = 10_000, seed: int = 0) -> Interval:
    """The objective of one candidate with its interval.

    Args:
        draws: resamples; at most 1,000 where a task's aggregation has no closed form.
    """
    tasks = measure.counting(scores)
    samplers = [measure.resampler(task) for task in tasks]
    found = [
        measure.combined(tasks, [s.resampled(c) for s, c in zip(samplers, counts, strict=True)])
        for counts in resamples(tasks, limited(samplers, draws, SLOW_DRAWS), seed)
    ]
    return _interval(measure.observed(tasks, samplers), np.concatenate(found))


def compare(
    measure: Measure,
    first: Sequence[TaskScore],
    second: Sequence[TaskScore],
    draws: int = 10_000,
    seed: int = 0,
) -> Difference:
    """The difference between two candidates on the same documents, with interval and paired tests.

    Args:
        draws: resamples, and permutations; at most 1,000 where a task's aggregation has no closed form.

    Raises:
        InvalidInput: the candidates were not scored on the same documents.
    """
    require_same_documents(first, second)
    return Difference(
        paired_interval(measure, first, second, draws, seed),
        permutation_p(measure, first, second, draws, seed),
        mcnemar_p(measure, first, second),
        wilcoxon_p(measure, first, second),
    )


def paired_interval(
    measure: Measure, first: Sequence[TaskScore], second: Sequence[TaskScore], draws: int = 10_000, seed: int = 0
) -> Interval:
    """Objective of the first minus that of the second; both see the same resampled documents."""
    tasks, pairs = pairs_of(measure, first, second)
    found = []
    for counts in resamples(tasks, limited((s for pair in pairs for s in pair), draws, SLOW_DRAWS), seed):
        ours, theirs = (
            measure.combined(tasks, [pair[i].resampled(c) for pair, c in zip(pairs, counts, strict=True)])
            for i in (0, 1)
        )
        found.append(ours - theirs)
    ours_now, theirs_now = (measure.observed(tasks, [pair[i] for pair in pairs]) for i in (0, 1))
    return _interval(ours_now - theirs_now, np.concatenate(found))


def resamples(tasks: Sequence[TaskScore], draws: int, seed: int) -> Iterator[Counts]:
    """How often each document is in each resample, within its task: one read-only array [block, documents] a task.

    Drawing them takes most of an interval's time, and a study compares many candidates on the same documents.
    """
    sizes = tuple(len(task.documents) for task in tasks)
    yield from (_kept if draws * sum(sizes) <= REMEMBERED else _drawn)(sizes, draws, seed)


@lru_cache(maxsize=8)  # 100 MB at most; a study asks again for two or three, and for others once each
def _kept(sizes: tuple[int, ...], draws: int, seed: int) -> tuple[Counts, ...]:
    found = tuple(tuple(counts.astype(np.uint16) for counts in block) for block in _drawn(sizes, draws, seed))
    for counts in (counts for block in found for counts in block):
        counts.setflags(write=False)
    return found


def _drawn(sizes: tuple[int, ...], draws: int, seed: int) -> Iterator[Counts]:
    streams = [(np.random.default_rng([seed, 0, i]), n) for i, n in enumerate(sizes)]
    for rows in blocks(sum(sizes), draws):
        yield tuple(rng.multinomial(n, np.full(n, 1 / n), size=rows) for rng, n in streams)


def _interval(value: float, found: Floats) -> Interval:
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(value, float(low), float(high), float(np.std(found, ddof=1)))
