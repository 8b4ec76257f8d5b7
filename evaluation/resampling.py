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
CLOSED: dict[str, Callable[[Floats], Floats]] = {
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
    def resampled(self, counts: NDArray[Any]) -> Floats:
        """The value of each draw; counts: [draws, documents], how often each document is taken. -> [draws]."""

    @abstractmethod
    def swapped(
        self, other: "Resampler", mask: NDArray[np.bool_], where: NDArray[np.int64] | None = None
    ) -> tuple[Floats, Floats]:
        """Both values after the two exchange the documents in `mask` [draws, documents]. -> two of [draws].

        Args:
            where: positions of the documents that the columns of `mask` speak of; None: of all.
        """

    @abstractmethod
    def alone(self) -> Floats | None:
        """What each document would give alone: [documents]; None where one has no value alone."""

    @abstractmethod
    def differing(self, other: "Resampler") -> NDArray[np.int64]:
        """Positions of the documents on which the two have different items."""


def resampler(name: str, function: Function, items: Sequence[Any]) -> Resampler:
    """The fastest resampler for an aggregation.

    Args:
        name: lm-eval's name of the aggregation; custom ones are called.
        items: one a document, as lm-eval or JSON gives them.
    """
    if name in CLOSED:
        pairs = items if name in _PAIRS else [(item, 1.0) for item in items]
        return _Sums(np.asarray(pairs, dtype=np.float64), CLOSED[name])
    return _Called(list(items), function)


class _Sums(Resampler):
    """items: [documents, 2], numerators and denominators."""

    fast = True

    def __init__(self, items: Floats, value: Callable[[Floats], Floats]) -> None:
        self.size = len(items)
        self._items, self._value = items, value

    def resampled(self, counts: NDArray[Any]) -> Floats:
        return self._of(counts @ self._items)

    def alone(self) -> Floats:
        with np.errstate(over="ignore"):  # of a perplexity: a hopeless document is infinitely bad
            return self._of(self._items)

    def swapped(
        self, other: Resampler, mask: NDArray[np.bool_], where: NDArray[np.int64] | None = None
    ) -> tuple[Floats, Floats]:
        assert isinstance(other, _Sums)
        change = other._items - self._items
        moved = mask @ (change if where is None else change[where])  # [draws, 2]
        return self._of(self._items.sum(axis=0) + moved), self._of(other._items.sum(axis=0) - moved)

    def differing(self, other: Resampler) -> NDArray[np.int64]:
        assert isinstance(other, _Sums)
        return np.flatnonzero((self._items != other._items).any(axis=1))

    def _of(self, sums: Floats) -> Floats:
        return self._value(sums[:, 0] / sums[:, 1])


class _Called(Resampler):
    fast = False

    def __init__(self, items: list[Any], function: Function) -> None:
        self.size = len(items)
        self._items, self._function = items, function

    def resampled(self, counts: NDArray[Any]) -> Floats:
        positions = np.arange(self.size)
        return self._each([[self._items[i] for i in np.repeat(positions, row)] for row in counts])

    def alone(self) -> None:
        return None  # f1 or a median of one document says nothing

    def swapped(
        self, other: Resampler, mask: NDArray[np.bool_], where: NDArray[np.int64] | None = None
    ) -> tuple[Floats, Floats]:
        assert isinstance(other, _Called)
        if where is not None:
            whole = np.zeros((len(mask), self.size), dtype=np.bool_)
            whole[:, where] = mask
            mask = whole
        pairs = list(zip(self._items, other._items, strict=True))
        ours = [[b if swap else a for (a, b), swap in zip(pairs, row, strict=True)] for row in mask]
        theirs = [[a if swap else b for (a, b), swap in zip(pairs, row, strict=True)] for row in mask]
        return self._each(ours), self._each(theirs)

    def differing(self, other: Resampler) -> NDArray[np.int64]:
        assert isinstance(other, _Called)
        return np.array(
            [i for i, pair in enumerate(zip(self._items, other._items, strict=True)) if pair[0] != pair[1]], np.int64
        )

    def _each(self, samples: list[list[Any]]) -> Floats:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a resample may lack a class, of which scikit-learn warns
            return np.array([float(self._function(sample)) for sample in samples])
