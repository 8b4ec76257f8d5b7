"""Where to cut the order of |τ|: exact k-th magnitudes by counting, never by sorting a tensor.

A float's bits without the sign, read as an integer, are in the order of its magnitudes. So one pass counts the upper
16 of the 32 bits; the k-th largest lies in one of these bins; a second pass counts the lower 16 bits of the bin's few
members, which says the value; and only if it cuts through equal magnitudes, a third finds the last index above it.
"""

import math
from typing import Protocol

import torch
from torch import Tensor

from merging.kernel.program import Cut, Keep

# Bits that a histogram's bins leave open: 2^15 bins of a tensor, 2^20 of a model.
BIN_BITS, MODEL_BIN_BITS = 16, 11


class Counts(Protocol):
    """Reads a tensor's deltas; see `merging.kernel.plain_select`. All tensors are flat."""

    def tally(self, base: Tensor, expert: Tensor, shift: int, table: Tensor, prefix: int | None = None) -> None:
        """Counts the upper bits of |τ|, or the lower ones of a bin's members."""
        ...

    def place(self, base: Tensor, expert: Tensor, pattern: int, nth: int) -> int:
        """The index of the nth element of these bits."""
        ...

    def row_cuts(self, base: Tensor, expert: Tensor, count: int, width: int) -> Cut:
        """One cut a row."""
        ...

    def ranks(self, base: Tensor, expert: Tensor, width: int) -> Tensor:
        """The rank of |τ| in its row."""
        ...

    def block_sums(self, base: Tensor, expert: Tensor, keep: Keep) -> Tensor:
        """Σ |τ| and Σ |m τ| of each block."""
        ...


def whole_cut(passes: Counts, base: Tensor, expert: Tensor, count: int, histogram: Tensor) -> Cut:
    """The cut above which lie exactly `count` elements, 0 < count < n."""
    upper, remaining = kth_bin(histogram, count)
    members = torch.zeros(1 << BIN_BITS, dtype=torch.int64)
    passes.tally(base, expert, BIN_BITS, members, upper)
    lower, missing = kth_bin(members, remaining)
    pattern = upper << BIN_BITS | lower
    all_of_them = missing == int(members[lower])
    last = base.numel() - 1 if all_of_them else passes.place(base, expert, pattern, missing)
    return cut_at(pattern, last, base.device)


def kth_bin(histogram: Tensor, count: int) -> tuple[int, int]:
    """The bin of the count-th largest (from 1) element, and how many of the bin's own belong to the largest."""
    above = histogram.cpu().flip(0).cumsum(0)
    at = int(torch.searchsorted(above, count))
    return histogram.numel() - 1 - at, count - (int(above[at - 1]) if at else 0)


def cut_at(pattern: int, index: int, device: torch.device | str = "cpu") -> Cut:
    """The cut of a tensor at a magnitude, given by its bits, and the last index that belongs to the upper side."""
    value = torch.tensor([pattern], dtype=torch.int32, device=device).view(torch.float32)
    return Cut(value, torch.tensor([index], dtype=torch.int64, device=device))


def trivial_cut(everything: bool, rows: int, width: int, device: torch.device) -> Cut:
    """The cut above which lies everything, or nothing (but NaN)."""
    value, index = (0.0, width - 1) if everything else (math.inf, -1)
    values = torch.full((rows,), value, dtype=torch.float32, device=device)
    return Cut(values, torch.full((rows,), index, dtype=torch.int64, device=device))
