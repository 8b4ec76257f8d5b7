"""Methods whose coefficients or masks were learned on documents (`merging.artefacts`).

Weights are relative: equal ones leave what was learned as it is, others shift it between the experts.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from merging.codecs.bits import unpack
from merging.methods.contract import DeltaMethod, LinearMethod, Parameters, TensorContext


class _LearnedSum:
    """θ_0 + λ Σ c'_t τ_t, c'_t = w_t c_t · Σ|c| / Σ w|c|, c_t the learned coefficient of the tensor.

    Sizes, for coefficients may be negative; where none is, c' has the sum of c. A tensor that nothing was learned of
    takes the weighted mean.
    """

    def coefficients(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> list[float]:
        learned = _learned(context, len(weights))
        if learned is None:
            learned = [1.0 / len(weights)] * len(weights)
        taking = math.fsum(w * abs(c) for w, c in zip(weights, learned, strict=True))
        total = math.fsum(abs(c) for c in learned)
        scale = parameters["lambda"] * total / taking if taking else 0.0
        found = [scale * w * c for w, c in zip(weights, learned, strict=True)]
        return [1.0 - math.fsum(found), *found]


class _AdaptiveAveraging:
    """α θ_0 + (1 − α) Σ w_t X_t / Σ w_t, α the base's learned share of the tensor (arXiv:2309.06256).

    An artefact holds α behind every expert.
    """

    def coefficients(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> list[float]:
        learned = _learned(context, len(weights)) or [parameters["alpha0"]] * len(weights)
        total = math.fsum(weights)
        found = [w * (1.0 - alpha) / total for w, alpha in zip(weights, learned, strict=True)]
        return [1.0 - math.fsum(found), *found]


class _TrainedMasks:
    """λ Σ w_t m_t ⊙ τ_t / Σ w_t m_t, m_t the trained mask; 0 where nobody's mask is, or none was trained."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> Tensor:
        """The masks, bool [T, *shape]."""
        masks = torch.zeros(deltas.shape, dtype=torch.bool, device=deltas.device)
        for t, mask in enumerate(masks):
            packed = context.measured.tensor("masks", t)
            if packed is not None:
                mask.copy_(unpack(packed, mask.numel()).view(mask.shape))
        return masks

    def combine(self, deltas: Tensor, prepared: Tensor, weights: Tensor, parameters: Parameters) -> Tensor:
        """The update [*shape]."""
        total, share = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
        for delta, mask, weight in zip(deltas, prepared, weights.tolist(), strict=True):
            taking = mask * weight
            share += taking
            total += taking * delta  # multiplied, not chosen: NaN reaches the result
        return total.div_(share.masked_fill_(share == 0.0, 1.0)).mul_(parameters["lambda"])


def _learned(context: TensorContext, experts: int) -> list[float] | None:
    """What was learned of the tensor for each expert; None if nothing was."""
    found = [context.measured.tensor("coefficients", t) for t in range(experts)]
    return None if any(each is None for each in found) else [float(each) for each in found if each is not None]


learned_sum: LinearMethod = _LearnedSum()
adaptive_averaging: LinearMethod = _AdaptiveAveraging()
trained_masks: DeltaMethod = _TrainedMasks()
