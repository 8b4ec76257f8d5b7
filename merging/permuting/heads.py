"""Matches attention heads: key-value heads, the query heads of each, and the channels of its values, all at once.

How alike two key-value heads are depends on how well the units inside them match, so each pair that comes into
question is matched inside before the heads are assigned to one another.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.permuting.assignment import assign
from merging.permuting.specification import Permutation

_GAIN = 1e-12  # of what a pair's similarity consists of: less is rounding


@dataclass(frozen=True)
class Step:
    """One step of an ascent.

    Attributes:
        orders: what to do to the units as they are now.
        gain: what that adds to the similarity, never below 0 but for rounding.
        scale: how large the similarity could be: gains far smaller than this are rounding.
    """

    orders: dict[str, Tensor]
    gain: float
    scale: float


class HeadProducts:
    """Inner products of the reference's heads (first half of the axes) with the expert's (second half), float64.

    Args:
        groups: key-value heads.
        queries: query heads of each.
        channels: channels of each head.

    Attributes:
        fixed: [groups, groups], of what nothing inside the heads permutes: keys.
        queries: [groups, queries, groups, queries], of the queries' rows.
        channels: [groups, channels, groups, channels], of the values' rows.
        both: [groups, queries, channels, groups, queries, channels], of the output's columns.
    """

    def __init__(self, groups: int, queries: int, channels: int) -> None:
        self.sizes = groups, queries, channels
        self.fixed = torch.zeros((groups,) * 2, dtype=torch.float64)
        self.queries = torch.zeros((groups, queries) * 2, dtype=torch.float64)
        self.channels = torch.zeros((groups, channels) * 2, dtype=torch.float64)
        self.both = torch.zeros((groups, queries, channels) * 2, dtype=torch.float64)

    def add(self, kinds: Collection[str], reference: Tensor, expert: Tensor) -> None:
        """Adds the products of one site.

        Args:
            kinds: what inside the heads permutes it: `queries`, `channels`, both or nothing.
            reference, expert: float64 [groups, numbers].
        """
        queries, channels = (size if kind in kinds else 1 for kind, size in self._inner())
        rows = self.sizes[0] * queries * channels
        products = reference.reshape(rows, -1) @ expert.reshape(rows, -1).mT
        total = {
            (False, False): self.fixed,
            (True, False): self.queries,
            (False, True): self.channels,
            (True, True): self.both,
        }["queries" in kinds, "channels" in kinds]
        total += products.view_as(total)

    def bounds(self) -> Tensor:
        """[groups, groups]: no matching inside a pair makes it more alike than this."""
        of_outputs = self.both.amax(4).sum(1)  # [groups, channels, groups, channels]: the best query head for each
        inside = (self.channels + of_outputs).amax(3).sum(1)
        return self.fixed + self.queries.amax(3).sum(1) + inside

    def pair(self, ours: int, theirs: int) -> "_Pair":
        """The products of one of the reference's heads with one of the expert's."""
        fixed = float(self.fixed[ours, theirs])
        return _Pair(
            fixed, self.queries[ours, :, theirs], self.channels[ours, :, theirs], self.both[ours, :, :, theirs]
        )

    def _inner(self) -> tuple[tuple[str, int], tuple[str, int]]:
        return ("queries", self.sizes[1]), ("channels", self.sizes[2])


class _Pair:
    """Two heads and the units in them.

    Attributes:
        queries, channels: the best orders found so far, [queries] and [channels].
        value: how alike the heads are with these.
    """

    def __init__(self, fixed: float, queries: Tensor, channels: Tensor, both: Tensor) -> None:
        self._fixed, self._queries, self._channels = fixed, queries, channels
        self._both = both.transpose(1, 2)  # [queries, queries, channels, channels]
        self.queries, self.channels = torch.arange(len(queries)), torch.arange(len(channels))
        self.value = self._value(self.queries, self._of_channels(self.queries), self.channels)

    def solve(self) -> "_Pair":
        """Orders query heads and channels in turn, each exactly, until that gains nothing."""
        while True:
            channels_here = torch.arange(len(self.channels))
            queries = assign(self._queries + self._both[:, :, channels_here, self.channels].sum(2))
            of_channels = self._of_channels(queries)
            channels = assign(of_channels)
            value = self._value(queries, of_channels, channels)
            if value <= self.value + _GAIN * float(of_channels.abs().amax(1).sum()):
                return self
            self.queries, self.channels, self.value = queries, channels, value

    def _of_channels(self, queries: Tensor) -> Tensor:
        """[channels, channels]: products of values' rows and outputs' columns, with the query heads in this order."""
        return self._channels + self._both[torch.arange(len(queries)), queries].sum(0)

    def _value(self, queries: Tensor, of_channels: Tensor, channels: Tensor) -> float:
        """How alike the two heads are."""
        rows, columns = torch.arange(len(queries)), torch.arange(len(channels))
        return self._fixed + float(self._queries[rows, queries].sum() + of_channels[columns, channels].sum())


def match_heads(heads: Permutation, held: Sequence[Permutation], products: HeadProducts) -> Step:
    """The best order of key-value heads, each pair matched inside.

    Only pairs that an assignment by upper bounds chooses are matched inside: then their bounds give way to what they
    are worth, until it chooses none but such pairs. No other assignment is worth more.

    Args:
        heads: the key-value heads.
        held: the permutations inside them.
        products: of the reference with the expert.
    """
    bounds, solved = products.bounds(), dict[tuple[int, int], _Pair]()
    scale = float(bounds.abs().amax(1).sum())
    while True:
        order = assign(bounds)
        chosen = list(enumerate(order.tolist()))
        if all(pair in solved for pair in chosen):
            break
        for pair in chosen:
            if pair not in solved:
                solved[pair] = products.pair(*pair).solve()
                bounds[pair] = solved[pair].value
    gain = sum(solved[pair].value for pair in chosen) - sum(products.pair(i, i).value for i, _ in chosen)
    orders = {heads.name: order}
    for each in held:
        inside = solved[chosen[each.siblings.index(each.name)]]
        orders[each.name] = inside.queries if each.kind == "queries" else inside.channels
    return Step(orders, gain, scale)
