"""Reinforced agent merging (arXiv:2601.13572): what one expert alone changed stays whole, the rest is averaged.

An element is changed where |τ_t| > ε. For experts trained by reinforcement, whose deltas are sparse; with dense
deltas it degenerates to the average.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from merging.kernel.program import Cut, Keep, Program
from merging.methods.contract import DeltaMethod, ElementwiseMethod, Parameters, TensorContext
from merging.methods.primitives import mean_


class _Ram:
    """λ Σ_C w_t τ_t / Σ_C w_t, C = {t: |τ_t| > ε}: over one expert alone its own delta, whatever its weight."""

    def program(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> Program:
        changed = Cut(torch.tensor([parameters["epsilon"]], dtype=torch.float32), torch.tensor([-1]))
        return Program(tuple(Keep(weight, above=changed) for weight in weights), "mean", parameters["lambda"])


class _RamPlus:
    """As RAM, elements of one expert alone times f_t = 1 + r · min(ρ_t, α), ρ_t = shared_t / unique_t in the tensor.

    The factor makes up for what averaging takes from the expert's shared elements.
    """

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> None:
        return None

    def combine(self, deltas: Tensor, prepared: None, weights: Tensor, parameters: Parameters) -> Tensor:
        changed = _changed(deltas, weights, parameters["epsilon"])
        numerator, denominator = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
        for delta, mask, weight in zip(deltas, changed, weights.tolist(), strict=True):
            numerator.add_((delta * mask).mul_(weight))
            denominator.add_(mask, alpha=weight)
        update = mean_(numerator, denominator)
        alone = changed.sum(0, dtype=torch.int32) == 1
        for mask in changed:
            unique = mask & alone
            update.mul_(torch.where(unique, _factor(mask, unique, parameters), 1.0))
        return update.mul_(parameters["lambda"])


def _changed(deltas: Tensor, weights: Tensor, epsilon: float) -> Tensor:
    """bool [T, *shape]: what each expert that takes part changed, NaN included."""
    changed = torch.empty_like(deltas, dtype=torch.bool)
    for mask, delta, weight in zip(changed, deltas, weights.tolist(), strict=True):
        if weight == 0.0:
            mask.zero_()
        else:
            mask.copy_(delta.abs() <= epsilon).logical_not_()
    return changed


def _factor(mask: Tensor, unique: Tensor, parameters: Parameters) -> float:
    """f_t of an expert that changed `mask`, and `unique` of it alone; without such elements it multiplies nothing."""
    own = int(unique.count_nonzero())
    ratio = (int(mask.count_nonzero()) - own) / max(own, 1)
    return float(1.0 + parameters["r"] * min(ratio, parameters["alpha"]))


ram: ElementwiseMethod = _Ram()
ram_plus: DeltaMethod = _RamPlus()
