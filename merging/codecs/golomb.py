"""Which elements are kept, as Rice-coded gaps between their indices: near the entropy where they lie at random.

A gap g, the number of elements skipped, is g >> b zeros and a one in the stream `high`, and its b lower bits in
`low`. Apart, the two decode without a loop: the ones of `high` are found all at once. Indices are int64.

Golomb, Run-length encodings, 1966; the parameter as in Kiely, Selecting the Golomb parameter in Rice coding, 2004.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.codecs.bits import count_ones, pack, packed_size, unpack
from merging.codecs.fitting import fits

_GOLDEN = (math.sqrt(5.0) - 1.0) / 2.0  # φ − 1
_WIDEST = 62  # bits of a gap that int64 holds with room to add


@dataclass(frozen=True, eq=False)
class Gaps:
    """Ascending indices.

    Attributes:
        high: uint8 [*], the stops of the upper parts; its last byte holds the last stop.
        low: uint8 [b, ⌈count / 8⌉], the lowest bit of every gap, the second lowest …
        count: how many indices.
    """

    high: Tensor
    low: Tensor
    count: int

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Gaps":
        """The same elsewhere."""
        return Gaps(move(self.high), move(self.low), self.count)


def rice_parameter(share: float) -> int:
    """b: how many lower bits of a gap are kept as they are, the best number if a `share` of elements is kept at random.

    b = max(0, 1 + ⌊log₂ (ln (φ − 1) / ln (1 − share))⌋), 0 < share ≤ 1.
    """
    if share >= 1.0:
        return 0
    return max(0, 1 + math.floor(math.log2(math.log(_GOLDEN) / math.log1p(-share))))


def encode(indices: Tensor, size: int) -> Gaps:
    """The code of indices int64 [count], ascending and below `size`."""
    count, device = indices.numel(), indices.device
    if not count:
        nothing = torch.empty((0, 0), dtype=torch.uint8, device=device)
        return Gaps(nothing.flatten(), nothing, 0)
    parameter = rice_parameter(count / size)
    gaps = indices.diff(prepend=indices.new_tensor([-1])) - 1
    stops = ((gaps >> parameter) + 1).cumsum(0) - 1
    flags = torch.zeros(int(stops[-1]) + 1, dtype=torch.bool, device=device)
    flags[stops] = True
    low = torch.empty((parameter, packed_size(count)), dtype=torch.uint8, device=device)
    for place in range(parameter):
        low[place] = pack(((gaps >> place) & 1).to(torch.bool))
    return Gaps(pack(flags), low, count)


def decode(gaps: Gaps) -> Tensor:
    """The indices, int64 [count]."""
    device, parameter = gaps.high.device, len(gaps.low)
    stops = unpack(gaps.high, 8 * gaps.high.numel()).nonzero().flatten()
    order = torch.arange(gaps.count, device=device)
    low = torch.zeros(gaps.count, dtype=torch.int64, device=device)
    for place in range(parameter):
        low.bitwise_or_(unpack(gaps.low[place], gaps.count).to(torch.int64) << place)
    # the zeros before a stop are the upper parts so far; each index before adds 1
    return ((stops - order) << parameter).add_(low.cumsum_(0)).add_(order)


def check(gaps: Gaps, size: int) -> Gaps:
    """The code, which has as many indices as it says, all below `size`: known without decoding it.

    Raises:
        ValueError: it has others; says how.
    """
    fits("high", gaps.high, (gaps.high.numel(),), torch.uint8)
    fits("low", gaps.low, (*gaps.low.shape[:1], packed_size(gaps.count)), torch.uint8)
    stops = count_ones(gaps.high)
    if stops != gaps.count:
        raise ValueError(f"high has {stops} indices, not {gaps.count}")
    if len(gaps.low) > _WIDEST:
        raise ValueError(f"low has {len(gaps.low)} bits a gap, more than {_WIDEST}")
    if gaps.high.numel():
        last = int(gaps.high[-1]).bit_length()
        if not last:
            raise ValueError("high ends with zeros")
        upper = 8 * (gaps.high.numel() - 1) + last - gaps.count
        lower = sum(count_ones(plane) << place for place, plane in enumerate(gaps.low))
        if (upper << len(gaps.low)) + lower + gaps.count > size:
            raise ValueError(f"the last index lies beyond the {size} elements")
    return gaps
