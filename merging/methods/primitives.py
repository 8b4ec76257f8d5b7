"""The steps that methods over whole deltas are made of: select elements, elect signs, divide, sum.

A function whose name ends in `_` overwrites its first argument; the others are pure. Selections never sort a tensor:
one selection of the k-th value, then a comparison.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from merging.kernel.program import NOBODY

# Elements of one sum. Torch splits a reduction to a single number between threads from 32,768 elements on.
_CHUNK = 1 << 13


def largest_mask(values: Tensor, count: int) -> Tensor:
    """bool [*shape]: True at exactly the `count` largest values; of equal values the lowest indices win."""
    flat = values.flatten()
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if count >= flat.numel():
        return torch.ones_like(values, dtype=torch.bool)
    threshold = flat.kthvalue(flat.numel() - count + 1).values
    mask = flat > threshold
    missing = count - int(mask.count_nonzero())
    mask[(flat == threshold).nonzero().flatten()[:missing]] = True  # indices ascend: the lowest win
    return mask.view_as(values)


def elect_(votes: Tensor) -> Tensor:
    """votes = the sign +1 or −1 of the summed votes [*shape]; a tied vote elects +1."""
    return torch.ge(votes, 0.0, out=votes).mul_(2.0).sub_(1.0)  # 1 or 0, then ±1


def mean_(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator (≥ 0), overwriting both; a denominator over nobody counts as 1: 0 stays 0."""
    nobody = torch.lt(denominator, NOBODY, out=torch.empty_like(denominator))
    return numerator.div_(denominator.add_(nobody))


def steady_sum(values: Tensor) -> Tensor:
    """Σ of all elements in float64 -> [], the same bits on any number of threads.

    Many short sums, then a sum of their results: rows are shared out between threads, a row never is.
    """
    flat = values.flatten()
    while flat.numel() > _CHUNK:
        flat = pad(flat, (0, -flat.numel() % _CHUNK)).view(-1, _CHUNK).sum(-1, dtype=torch.float64)
    return flat.sum(dtype=torch.float64)
