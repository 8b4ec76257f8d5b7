"""Packed rows: token sequences that begin alike lie in one row, what they share once.

A row is a prefix tree written down depth first. A position sees its ancestors and itself, and its place in the
sequence is its depth, so that each branch is computed as if it stood alone. A row without branches is a plain sequence.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int32]
_ARRAY_BYTES = 112  # of an array without its numbers


@dataclass(frozen=True)
class Query:
    """A question to the model: how likely the last `targets` tokens are after those before them.

    Args:
        tokens: context and continuation, [n] of int32, cut to the context window plus one.
        targets: tokens of the continuation, at least one.
    """

    tokens: Ints
    targets: int

    @property
    def inputs(self) -> Ints:
        """What the model reads: all but the last token."""
        return self.tokens[:-1]


@dataclass(frozen=True)
class Row:
    """A prefix tree of `T` positions with `M` targets.

    Attributes:
        tokens: [T] what stands there.
        depths: [T] how many ancestors a position has.
        ends: [T] where its subtree ends: position i sees position j if j <= i < ends[j].
        places: [M] the position that predicts a target.
        targets: [M] the token that is predicted.
        owners: [M] number of the query the target belongs to; a query's targets stand together, in order.
        branched: whether it is more than one sequence.
    """

    tokens: Ints
    depths: Ints
    ends: Ints
    places: Ints
    targets: Ints
    owners: Ints
    branched: bool

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def depth(self) -> int:
        """Positions of the longest sequence in it."""
        return int(self.depths.max()) + 1

    @property
    def nbytes(self) -> int:
        """Memory it takes."""
        arrays = (self.tokens, self.depths, self.ends, self.places, self.targets, self.owners)
        return sum(array.nbytes + _ARRAY_BYTES for array in arrays)


@dataclass(frozen=True)
class Shape:
    """Which sequences may share a row.

    Args:
        deepest: positions of the longest sequence that may have a branch; 0: rows stay plain sequences.
        widest: most positions of a row with branches.
        hidden: the model's hidden size, which says what a position costs against what it costs to look at one.
    """

    deepest: int
    widest: int
    hidden: int


def plant(queries: Sequence[Query], shape: Shape) -> list[Row]:
    """Pack all queries; which ones share a row follows from the tokens alone.

    Returns:
        Rows, the longest first. Owners are indices in `queries`.
    """
    # big endian bytes sort as the numbers do, and far faster than tuples of them
    keys = [query.tokens.astype(">u4").tobytes() for query in queries]
    order = sorted(range(len(queries)), key=lambda i: (keys[i][:-4], keys[i], queries[i].targets))
    rows: list[Row] = []
    growing: _Growing | None = None
    for number in order:
        query = queries[number]
        common = 0 if growing is None else _common(growing.last, query.inputs)
        if growing is None or not growing.takes(len(query.inputs), common, shape):
            rows += [growing.row()] if growing else []
            growing, common = _Growing(), 0
        growing.add(query, number, common)
    rows += [growing.row()] if growing else []
    return sorted(rows, key=len, reverse=True)  # stable: ties stay in the order of the tokens


class _Growing:
    """A row that queries are added to, in the order of their tokens."""

    def __init__(self) -> None:
        self.last: Ints = np.empty(0, np.int32)
        self._path: Ints = np.empty(0, np.int32)  # the positions of the sequence added last
        self._length = 0
        self._deepest = 0
        self._branched = False
        self._ends: list[tuple[Ints, int]] = []
        self._parts: dict[str, list[Any]] = {"tokens": [], "depths": [], "places": [], "targets": [], "owners": []}

    def takes(self, length: int, common: int, shape: Shape) -> bool:
        """Whether a sequence of that length, which begins with `common` known tokens, is cheaper here than alone."""
        if common == len(self.last):
            fits = length <= shape.widest or not self._branched
            return fits and (not self._branched or length <= shape.deepest)
        new = length - common
        if max(self._deepest, length) > shape.deepest or self._length + new > shape.widest:
            return False
        # in units of 4 * hidden operations a layer: a position costs about 6 * hidden, a pair of positions one
        return common * 6 * shape.hidden + length**2 > 2 * self._length * new + new**2

    def add(self, query: Query, number: int, common: int) -> None:
        inputs = query.inputs
        fresh = np.arange(self._length, self._length + len(inputs) - common, dtype=np.int32)
        self._branched |= common < len(self._path)
        self._ends.append((self._path[common:], self._length))
        self._path = np.concatenate([self._path[:common], fresh])
        self._parts["tokens"].append(inputs[common:])
        self._parts["depths"].append(np.arange(common, len(inputs), dtype=np.int32))
        self._parts["places"].append(self._path[len(inputs) - query.targets :])
        self._parts["targets"].append(query.tokens[-query.targets :])
        self._parts["owners"].append(np.full(query.targets, number, np.int32))
        self._length += len(fresh)
        self._deepest = max(self._deepest, len(inputs))
        self.last = inputs

    def row(self) -> Row:
        ends = np.full(self._length, self._length, np.int32)
        for places, end in self._ends:
            ends[places] = end
        arrays = {name: np.concatenate(parts).astype(np.int32) for name, parts in self._parts.items()}
        return Row(ends=ends, branched=self._branched, **arrays)


def chains(row: Row) -> list[Row]:
    """The queries of a row as rows of their own, in the order of the row's targets."""
    starts = [*np.flatnonzero(np.diff(row.owners, prepend=-1)).tolist(), len(row.owners)]
    return [_chain(row, start, stop) for start, stop in pairwise(starts)]


def _chain(row: Row, start: int, stop: int) -> Row:
    leaf = row.places[stop - 1]
    path = np.flatnonzero((np.arange(len(row)) <= leaf) & (row.ends > leaf))
    length = len(path)
    return Row(
        tokens=row.tokens[path],
        depths=np.arange(length, dtype=np.int32),
        ends=np.full(length, length, np.int32),
        places=row.depths[row.places[start:stop]],
        targets=row.targets[start:stop],
        owners=row.owners[start:stop],
        branched=False,
    )


def _common(one: Ints, other: Ints) -> int:
    """How many tokens two sequences have in common at their beginning."""
    length = min(len(one), len(other))
    differing = np.flatnonzero(one[:length] != other[:length])
    return int(differing[0]) if len(differing) else length
