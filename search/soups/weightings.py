"""Averages worth an estimate: plain ones of every subset, and unequal ones drawn at random."""

from collections.abc import Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from search.soups.counts import Counts, reduced

_ALL_SUBSETS = 10  # experts up to which every subset is taken


def weightings(experts: Sequence[int], count: int, parts: int, most: int, seed: int) -> list[Counts]:
    """Averages of two experts or more, no two alike: half of them plain at most, the rest uniform on the simplex.

    Args:
        experts: positions of those that may take part.
        count: how many experts there are.
        parts: unequal weights are multiples of 1/parts.
        most: averages that are wanted; fewer where there are no more.
        seed: the same seed draws the same.
    """
    rng = np.random.default_rng(seed)
    found: dict[Counts, None] = {}
    for chosen in _subsets(len(experts), most // 2, rng):
        _add(found, chosen, experts, count)
    for _ in range(2 * most):  # where few are possible most draws repeat
        if len(found) >= most:
            break
        size = int(rng.integers(2, len(experts) + 1))
        inside = rng.choice(len(experts), size, replace=False)
        weights = np.zeros(len(experts))
        weights[inside] = rng.dirichlet(np.ones(size))
        _add(found, _rounded(weights, parts), experts, count)
    return list(found)


def _subsets(size: int, most: int, rng: np.random.Generator) -> Sequence[Sequence[int]]:
    """Which of so many take part, 0 or 1 each."""
    if size <= _ALL_SUBSETS and 2**size <= max(most, 4):
        return list(product((0, 1), repeat=size))
    drawn: list[list[int]] = (rng.random((most, size)) < rng.random((most, 1))).astype(int).tolist()
    return [[1] * size, *drawn]


def _add(found: dict[Counts, None], chosen: Sequence[int], experts: Sequence[int], count: int) -> None:
    if sum(map(bool, chosen)) > 1:
        where = dict(zip(experts, chosen, strict=True))
        found[reduced(tuple(where.get(i, 0) for i in range(count)))] = None


def _rounded(weights: NDArray[np.float64], parts: int) -> list[int]:
    """Whole parts that add up: each weight rounded down, what is left given to the largest remainders."""
    whole = np.floor(weights * parts).astype(int)
    remainders = weights * parts - whole
    whole[np.argsort(-remainders, kind="stable")[: parts - int(whole.sum())]] += 1
    found: list[int] = whole.tolist()
    return found
