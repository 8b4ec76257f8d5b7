"""What several methods over whole deltas need."""

import torch
from torch import Tensor
from torch.nn.functional import pad

# Elements of one sum. Torch splits a reduction to a single number between threads from 32,768 elements on.
_CHUNK = 1 << 13


def steady_sum(values: Tensor) -> Tensor:
    """Σ of all elements in float64 -> [], the same bits on any number of threads.

    Many short sums, then a sum of their results: rows are shared out between threads, a row never is.
    """
    flat = values.flatten()
    while flat.numel() > _CHUNK:
        flat = pad(flat, (0, -flat.numel() % _CHUNK)).view(-1, _CHUNK).sum(-1, dtype=torch.float64)
    return flat.sum(dtype=torch.float64)
