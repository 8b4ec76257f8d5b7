"""The derivative of a loss by every expert's weight in every group of tensors, from one backward pass.

Where θ = θ₀ + Σ_t λ_{t,g} τ_t in the tensors of group g, dL/dλ_{t,g} = Σ_{tensors of g} ⟨∂L/∂θ, τ_t⟩: AdaMerging,
learned soups and adaptive averaging learn by it. The loss and the pass are the caller's.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor

from merging.models import Stack

CHUNK = 1 << 18
"""Elements of each delta that are held at a time, in float64."""


def coefficient_gradient(
    gradients: Iterable[tuple[str, Tensor]], stack: Callable[[str], Stack], groups: Mapping[str, int], experts: int
) -> Tensor:
    """dL/dλ, float64 [experts, groups] on the CPU.

    Args:
        gradients: ∂L/∂θ of tensors by name, each as it is made; those left out count as 0.
        stack: the tensors of a name (`ModelSet.stack`).
        groups: each tensor's group, from 0.
        experts: how many a stack has.
    """
    total = torch.zeros(experts, 1 + max(groups.values(), default=-1), dtype=torch.float64)
    for name, gradient in gradients:
        total[:, groups[name]] += inner_products(gradient, stack(name))
    return total


def inner_products(gradient: Tensor, stack: Stack) -> Tensor:
    """⟨gradient, τ_t⟩ of every expert, float64 [T] on the CPU, chunk by chunk where the gradient lies."""
    flat, base = gradient.detach().reshape(-1), stack.base.reshape(-1)
    experts = [expert.reshape(-1) for expert in stack.experts]
    total = torch.zeros(len(experts), dtype=torch.float64, device=flat.device)
    for first in range(0, flat.numel(), CHUNK):
        piece = slice(first, first + CHUNK)
        slope, origin = flat[piece].double(), base[piece].to(flat.device).double()
        total += torch.stack([torch.dot(x[piece].to(flat.device).double() - origin, slope) for x in experts])
    return total.cpu()
