"""Values of one task on resampled or swapped documents, for many draws at once.

Most aggregations are functions of sums over documents (mean; ratios such as bits per byte); for those a draw is one
product with the vector of counts. Any other is called once a draw.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Function = Callable[[Sequence[Any]], float]

# lm-eval's aggregations of sums: what becomes of (sum of numerators) / (sum of denominators)
_CLOSED: dict[str, Callable[[Floats], Floats]] = {
    "mean": lambda ratio: ratio,
    "perplexity": lambda ratio: np.exp(-ratio),
    "weighted_perplexity": lambda ratio: np.exp(-ratio),
    "bits_per_byte": lambda ratio: -ratio / np.log(2),
}
_PAIRS = ("weighted_perplexity", "bits_per_byte")  # items are (log-likelihood, weight)


class Resampler(ABC):
    """One task's items, and their aggregate under changes of the documents."""

    fast: bool
    size: int

    @abstractmethod
    def resampled(self, counts: NDArray[np.int64]) -> Floats:
        """The value of each draw; counts: [draws, documents], how often each document is taken. -> [draws]."""

    @abstractmethod
    def swapped(self, other: "Resampler", mask: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        """Both values after the two exchange the documents in `mask` [draws, documents]. -> two of [draws]."""


def resampler(name: str, function: Function, items: Sequence[Any]) -> Resampler:
    """The fastest resampler for an aggregation.

    Args:
        name: lm-eval's name of the aggregation; custom ones are called.
        items: one a document, as lm-eval or JSON gives them.
    """
    if name in _CLOSED:
        pairs = items if name in _PAIRS else [(item, 1.0) for item in items]
        return _Sums(np.asarray(pairs, dtype=np.float64), _CLOSED[name])
    return _Called(list(items), function)


class _Sums(Resampler):
    """items: [documents, 2], numerators and denominators."""

    fast = True

    def __init__(self, items: Floats, value: Callable[[Floats], Floats]) -> None:
        self.size = len(items)
        self._items, self._value = items, value

    def resampled(self, counts: NDArray[np.int64]) -> Floats:
        return self._of(counts @ self._items)

    def swapped(self, other: Resampler, mask: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        assert isinstance(other, _Sums)
        moved = mask @ (other._items - self._items)  # [draws, 2]
        return self._of(self._items.sum(axis=0) + moved), self._of(other._items.sum(axis=0) - moved)

    def _of(self, sums: Floats) -> Floats:
        return self._value(sums[:, 0] / sums[:, 1])


class _Called(Resampler):
    fast = False

    def __init__(self, items: list[Any], function: Function) -> None:
        self.size = len(items)
        self._items, self._function = items, function

    def resampled(self, counts: NDArray[np.int64]) -> Floats:
        positions = np.arange(self.size)
        return self._each([[self._items[i] for i in np.repeat(positions, row)] for row in counts])

    def swapped(self, other: Resampler, mask: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        assert isinstance(other, _Called)
        pairs = list(zip(self._items, other._items, strict=True))
        ours = [[b if swap else a for (a, b), swap in zip(pairs, row, strict=True)] for row in mask]
        theirs = [[a if swap else b for (a, b), swap in zip(pairs, row, strict=True)] for row in mask]
        return self._each(ours), self._each(theirs)

    def _each(self, samples: list[list[Any]]) -> Floats:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resample may lack a class, of which scikit-learn warns
            return np.array([float(self._function(sample)) for sample in samples])
