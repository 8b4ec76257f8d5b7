"""Gradients of the live model by checkpoint name, for as long as somebody asks for them."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Gradients = Callable[[], Iterator[tuple[str, Tensor]]]


@contextmanager
def tracked(model: Any, tensors: Mapping[str, Tensor]) -> Iterator[Gradients]:
    """Follows these tensors alone; everything else, and afterwards everything, is not followed.

    Args:
        tensors: the model's parameters by checkpoint name, or views of them.

    Yields:
        What gives each tensor's gradient after a backward pass, read only, and forgets them all; those that had no
        part in it are left out.
    """
    owners = {name: _owner(model, tensor) for name, tensor in tensors.items()}
    followed = {id(owner): owner for owner in owners.values() if owner is not None}

    def gradients() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in tensors.items():
            owner = owners[name]
            if owner is not None and owner.grad is not None:
                place = tensor.storage_offset() - owner.storage_offset()
                yield name, owner.grad.contiguous().as_strided(tensor.shape, tensor.stride(), place)
        for owner in followed.values():
            owner.grad = None

    for owner in followed.values():
        owner.requires_grad_(True)
    try:
        with torch.enable_grad():
            yield gradients
    finally:
        for owner in followed.values():
            owner.requires_grad_(False)
            owner.grad = None


def _owner(model: Any, tensor: Tensor) -> torch.nn.Parameter | None:
    """The parameter that a tensor is, or is a view of; None for a buffer."""
    begin, memory = tensor.storage_offset(), tensor.untyped_storage().data_ptr()
    parameter: torch.nn.Parameter
    for parameter in model.parameters():
        same = parameter.untyped_storage().data_ptr() == memory and parameter.dtype == tensor.dtype
        if same and parameter.storage_offset() <= begin < parameter.storage_offset() + parameter.numel():
            return parameter
    return None
