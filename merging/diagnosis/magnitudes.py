"""How large numbers are, counted in bins that are narrow everywhere: 128 to every power of two.

A bin is what the first 16 bits of a float32 without its sign say, so counting needs no range and no second look,
and every number that bfloat16 knows has a bin of its own.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

BINS = 1 << 15
_SHIFT = 16
PER_OCTAVE = 128


def bins_of(values: Tensor) -> Tensor:
    """The bin of |x| of each number, int32 of the same shape; 0 holds zero and what is too small to matter."""
    return values.abs().float().view(torch.int32) >> _SHIFT


def count(bins: Tensor) -> Tensor:
    """How many numbers each bin holds, by row: [T, n] -> int64 [T, BINS]."""
    rows = bins.shape[0]
    offsets = torch.arange(rows, dtype=torch.int32, device=bins.device)[:, None] * BINS
    return torch.bincount((bins + offsets).view(-1), minlength=rows * BINS).view(rows, BINS)


def edges(bins: Sequence[int]) -> list[float]:
    """The smallest number of each bin."""
    shifted = torch.tensor(list(bins), dtype=torch.int32) << _SHIFT
    return [float(edge) for edge in shifted.view(torch.float32)]


def top_bins(counts: Tensor, share: float) -> Tensor:
    """From which bin on the largest `share` of all numbers lie; never bin 0, so that zeros are never among them.

    Args:
        counts: [T, BINS].

    Returns:
        int64 [T]; together the bins from there hold at least that share, if so many numbers are not zero.
    """
    above = counts.flip(1).cumsum(1).flip(1)  # numbers in this bin and all above
    wanted = (counts.sum(1, keepdim=True).double() * share).ceil().clamp(min=1)
    reaching = (above >= wanted).sum(1) - 1
    return reaching.clamp(min=1)


def quantiles(counts: Tensor, shares: Sequence[float]) -> list[float]:
    """The magnitudes below which these shares of one row's numbers lie, 1% too low at most: bins begin there.

    Args:
        counts: [BINS].
    """
    total = int(counts.sum())
    if total == 0:
        return [0.0] * len(shares)
    ranks = torch.tensor([min(total, int(share * total) + 1) for share in shares], device=counts.device)
    return edges([int(found) for found in torch.searchsorted(counts.cumsum(0), ranks)])


def share_above(counts: Tensor, limit: float) -> float:
    """The share of one row's numbers other than zero that are larger than `limit`; 0 if all are zero."""
    moved = counts[1:].sum()
    first = int(bins_of(torch.tensor([limit]))[0]) + 1
    return float(counts[first:].sum() / moved) if moved else 0.0
