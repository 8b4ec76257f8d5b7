"""Plans: what to compute for a group of requests. Documents and tokenizer decide them, not the candidate."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from evaluation.lm.tree import Query, Row, Shape, plant

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")

Pair = tuple[list[int], list[int]]

_NARROWEST = 1024  # positions a row with branches may have, however short its sequences are


@dataclass(frozen=True)
class Plan:
    """Rows that answer all requests.

    Attributes:
        rows: longest first; their owners are numbers of distinct pairs.
        which: [P] the distinct pair that each asked pair is.
        sizes: [R] how many pairs, one after the other, each request is made of.
        shares: [distinct pairs] how many requests a pair answers; a part of a request counts as its share.
    """

    rows: tuple[Row, ...]
    which: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    shares: npt.NDArray[Any]

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        return self.which.nbytes + self.sizes.nbytes + self.shares.nbytes + sum(row.nbytes for row in self.rows)


def make_plan(requests: Sequence[Sequence[Pair]], max_length: int, deepest: int, hidden: int) -> Plan:
    """Pack the pairs of all requests; equal pairs are computed once.

    Args:
        requests: each one's pairs of context and continuation tokens.
        max_length: the context window; longer inputs lose their beginning, as in lm-eval.
        deepest: positions of the longest sequence that may share a row; 0: none may.
        hidden: the model's hidden size.

    Raises:
        ValueError: a context or a continuation has no tokens, or a continuation does not fit in the window.
    """
    numbers: dict[tuple[bytes, int], int] = {}
    queries: list[Query] = []
    which: list[int] = []
    for context, continuation in (pair for request in requests for pair in request):
        query = _query(context, continuation, max_length)
        which.append(numbers.setdefault((query.tokens.tobytes(), query.targets), len(queries)))
        if which[-1] == len(queries):
            queries.append(query)
    longest = max((len(query.inputs) for query in queries), default=0)
    rows = plant(queries, Shape(deepest, max(longest, _NARROWEST), hidden))
    sizes = np.array([len(request) for request in requests], np.int64)
    asked = np.array(which, np.int64)
    shares = np.bincount(asked, np.repeat(1 / np.maximum(sizes, 1), sizes), len(queries))
    return Plan(tuple(rows), asked, sizes, shares)


def _query(context: list[int], continuation: list[int], max_length: int) -> Query:
    if not context or not 0 < len(continuation) <= max_length:
        raise ValueError(f"{len(context)} context and {len(continuation)} continuation tokens cannot be scored")
    return Query(np.array((context + continuation)[-(max_length + 1) :], np.int32), len(continuation))


class Bounded(Generic[Key, Value]):
    """Things made once and kept, the least lately used given up when they weigh too much together.

    Args:
        most: the weight that may be kept.
        weigh: the weight of a thing.
    """

    def __init__(self, most: int, weigh: Callable[[Value], int]) -> None:
        self._most, self._weigh = most, weigh
        self._kept: OrderedDict[Key, Value] = OrderedDict()
        self._weight = 0

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The kept thing, or a new one."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        value = make()
        self._kept[key] = value
        self._weight += self._weigh(value)
        while self._weight > self._most and len(self._kept) > 1:
            self._weight -= self._weigh(self._kept.popitem(last=False)[1])
        return value

    def drop(self) -> None:
        """Keep nothing."""
        self._kept.clear()
        self._weight = 0
