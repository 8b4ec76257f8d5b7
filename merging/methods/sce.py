"""SCE: select the elements on which the experts differ most, calculate weights from energies, erase minorities.

From FuseChat (arXiv:2408.07990, section 3.3). Its weights follow from the deltas alone.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.methods.contract import DeltaMethod, Parameters, TensorContext
from merging.methods.primitives import elect_, largest_mask, mean_, steady_sum
from merging.methods.sparse import kept_count


@dataclass(frozen=True)
class _Selected:
    """What was selected and how much of each expert lies there.

    Attributes:
        mask: bool [*shape]; None selects everything.
        energies: mean of (m ⊙ τ_t)² over the whole tensor, one per expert.
    """

    mask: Tensor | None
    energies: tuple[float, ...]


class _Sce:
    """λ Σ_A e_t τ̂_t / Σ_A e_t, τ̂ = m ⊙ τ, e_t = Σ τ̂_t² / Σ_j Σ τ̂_j², A = {t: sign τ̂_t = sign Σ_j τ̂_j}."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> _Selected:
        mask = _most_varied(deltas, parameters["select"])
        size = max(1, deltas[0].numel())
        kept = (delta if mask is None else delta * mask for delta in deltas)
        return _Selected(mask, tuple(float(steady_sum(each.square())) / size for each in kept))

    def combine(self, deltas: Tensor, prepared: _Selected, weights: Tensor, parameters: Parameters) -> Tensor:
        energies = _weights(prepared.energies, parameters["uniform_below"])
        total = torch.zeros_like(deltas[0])
        for delta in deltas:
            total.add_(delta)
        sign = elect_(total)
        if parameters["mask_output"] and prepared.mask is not None:
            sign.mul_(prepared.mask)  # 0 agrees with nobody, and 0 · NaN is NaN
        numerator, denominator = torch.zeros_like(sign), torch.zeros_like(sign)
        for delta, weight in zip(deltas, energies, strict=True):
            agreeing = (delta * sign).clamp_(min=0.0)
            numerator.add_(agreeing, alpha=weight)
            denominator.add_(agreeing > 0.0, alpha=weight)
        return mean_(numerator.mul_(sign), denominator).mul_(parameters["lambda"])


def _most_varied(deltas: Tensor, share: float) -> Tensor | None:
    """bool [*shape]: the share of the elements that vary at all whose variance over the experts is largest.

    float64, then rounded: equal variances stay equal in every order of the experts. Experts without a difference
    (one alone, say) have nothing to select.
    """
    if share >= 1.0:
        return None
    mean = torch.zeros_like(deltas[0], dtype=torch.float64)
    for delta in deltas:
        mean.add_(delta)
    mean.div_(len(deltas))
    variance = torch.zeros_like(mean)
    for delta in deltas:
        variance.add_((delta - mean).square_())
    rounded = variance.float()
    varied = int(rounded.count_nonzero())
    return largest_mask(rounded, kept_count(share, varied) if varied else 0)


def _weights(energies: tuple[float, ...], uniform_below: float) -> list[float]:
    """Each expert's share of the energy; equal shares where there is next to none."""
    total = math.fsum(energies)
    if total == 0.0 or total < uniform_below:
        return [1.0 / len(energies)] * len(energies)
    return [energy / total for energy in energies]


sce: DeltaMethod = _Sce()
