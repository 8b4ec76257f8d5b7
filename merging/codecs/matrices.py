"""A tensor of one matrix or of a stack of them, seen as a stack."""

from math import prod

from torch import Tensor


def matrices(tensor: Tensor) -> Tensor:
    """[count, rows, columns] of a tensor [..., rows, columns]."""
    return tensor.reshape(prod(tensor.shape[:-2]), *tensor.shape[-2:])
