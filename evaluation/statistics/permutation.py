"""Paired permutation tests: if two candidates are alike, swapping their items on any document changes nothing."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from evaluation.resampling import Resampler
from evaluation.result import TaskScore
from evaluation.statistics.measure import Floats, Measure, blocks, limited, pairs_of, shared

SLOW_DRAWS = 1_000  # where an aggregation must be called once a draw
_SLOW_LOOKS = 400  # the same, for a test that is made during the search
Pairs = Sequence[tuple[Resampler, Resampler]]
Masks = list[NDArray[np.bool_]]


def permutation_p(
    measure: Measure, first: Sequence[TaskScore], second: Sequence[TaskScore], draws: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p of the paired permutation test: (1 + draws at least as far apart) / (draws + 1).

    A draw swaps the items of each document with chance 1/2.

    Raises:
        InvalidInput: the candidates were not scored on the same documents.
    """
    tasks, pairs = pairs_of(measure, first, second)
    total = limited((s for pair in pairs for s in pair), draws, SLOW_DRAWS)
    observed, tie = _observed(measure, tasks, pairs)
    as_far = 0
    for masks in _masks(tasks, total, seed):
        as_far += int(np.sum(np.abs(_swapped(measure, tasks, pairs, masks)) >= abs(observed) - tie))
    return (1 + as_far) / (total + 1)


def p_worse(
    measure: Measure, ours: Sequence[TaskScore], theirs: Sequence[TaskScore], draws: int = 2_000, seed: int = 0
) -> float:
    """The chance that we would be at least this much worse if both were alike; small: we are worse.

    One-sided, paired, on the documents that both have. Exact where swapping the documents they differ on gives at
    most `draws` cases; else by that many random ones, (1 + cases as bad) / (draws + 1), which keeps the error rate.

    Args:
        draws: at most 400 where a task's aggregation has no closed form.
        seed: the same seed gives the same p.

    Raises:
        InvalidInput: a task's score cannot be computed on the documents that both have.
    """
    ours, theirs = shared(measure.counting(ours), measure.counting(theirs), measure.aggregations)
    if not ours:
        return 1.0
    tasks, pairs = pairs_of(measure, ours, theirs)
    total = limited((s for pair in pairs for s in pair), draws, _SLOW_LOOKS)
    observed, tie = _observed(measure, tasks, pairs)
    where = [one.differing(other) for one, other in pairs]
    differing = sum(map(len, where))
    exact = 2**differing <= total
    as_bad = 0
    for masks in _cases(where) if exact else _draws(where, total, seed):
        as_bad += int(np.sum(_swapped(measure, tasks, pairs, masks, where) <= observed + tie))
    return as_bad / 2**differing if exact else (1 + as_bad) / (total + 1)


def _observed(measure: Measure, tasks: Sequence[TaskScore], pairs: Pairs) -> tuple[float, float]:
    """The difference as it is, and by how much another may miss it and still be its equal."""
    ours, theirs = (measure.observed(tasks, [pair[i] for pair in pairs]) for i in (0, 1))
    # sums in another order differ in the last bits, and a tie must count as one
    return ours - theirs, 1e-9 * max(1.0, abs(ours), abs(theirs))


def _swapped(
    measure: Measure,
    tasks: Sequence[TaskScore],
    pairs: Pairs,
    masks: Masks,
    where: Sequence[NDArray[np.int64]] | None = None,
) -> Floats:
    """The difference after each swap: [draws]."""
    positions = [None for _ in pairs] if where is None else list(where)
    both = [one.swapped(other, mask, at) for (one, other), mask, at in zip(pairs, masks, positions, strict=True)]
    ours, theirs = (measure.combined(tasks, [values[i] for values in both]) for i in (0, 1))
    found: Floats = ours - theirs
    return found


def _masks(tasks: Sequence[TaskScore], draws: int, seed: int) -> Iterator[Masks]:
    """Which documents are swapped in each permutation: one array [block, documents] a task."""
    streams = [(np.random.default_rng([seed, 1, i]), len(task.documents)) for i, task in enumerate(tasks)]
    for rows in blocks(sum(n for _, n in streams), draws):
        yield [rng.random((rows, n)) < 0.5 for rng, n in streams]


def _draws(where: Sequence[NDArray[np.int64]], draws: int, seed: int) -> Iterator[Masks]:
    """As `_masks`, for the documents that differ."""
    rng = np.random.default_rng([seed, 2])
    for rows in blocks(sum(map(len, where)), draws):
        yield [rng.integers(0, 2, size=(rows, len(at)), dtype=np.bool_) for at in where]


def _cases(where: Sequence[NDArray[np.int64]]) -> Iterator[Masks]:
    """Every way to swap the documents that differ, as one block."""
    sizes = [len(at) for at in where]
    cases = np.arange(2 ** sum(sizes))[:, None] >> np.arange(sum(sizes))
    yield np.split((cases & 1).astype(np.bool_), np.cumsum(sizes)[:-1], axis=1)
