"""Gradients of the live model by checkpoint name, for as long as somebody asks for them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

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
    of = owners(model, tensors)
    followed = {id(owner): owner for owner in of.values() if owner is not None}

    def gradients() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in tensors.items():
            owner = of[name]
            if owner is not None and owner.grad is not None:
                yield name, _share(owner, owner.grad, tensor)
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


def owners(model: Any, tensors: Mapping[str, Tensor]) -> dict[str, Parameter | None]:
    """The parameter that each tensor is, or is a view of, by name; None for a buffer."""
    places: dict[tuple[int, torch.dtype], list[Parameter]] = {}
    for parameter in model.parameters():
        places.setdefault(_memory(parameter), []).append(parameter)
    return {name: _owner(tensor, places.get(_memory(tensor), [])) for name, tensor in tensors.items()}


def _memory(tensor: Tensor) -> tuple[int, torch.dtype]:
    return tensor.untyped_storage().data_ptr(), tensor.dtype


def _owner(tensor: Tensor, there: Iterable[Parameter]) -> Parameter | None:
    begin = tensor.storage_offset()
    held = (each for each in there if each.storage_offset() <= begin < each.storage_offset() + each.numel())
    return next(held, None)


def _share(owner: Parameter, gradient: Tensor, tensor: Tensor) -> Tensor:
    """What of a parameter's gradient is a tensor's that is a view of the parameter."""
    if gradient.stride() != owner.stride():
        gradient = torch.empty_like(owner).copy_(gradient)  # laid out as the parameter
    first = gradient.storage_offset() + tensor.storage_offset() - owner.storage_offset()
    return gradient.as_strided(tensor.shape, tensor.stride(), first)
