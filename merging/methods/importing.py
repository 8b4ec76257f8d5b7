"""Methods that import cautiously from one expert: small differences, or only important ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.kernel.competing import Contest
from merging.methods.contract import DeltaMethod, ElementwiseMethod, Parameters, TensorContext
from merging.methods.primitives import steady_sum

_SMOOTHING = 1e-8  # added to probabilities after the softmax
_CHUNK = 1 << 20  # elements whose float64 probabilities are held at a time


class _NearSwap:
    """clamp(τ, −t, t): elements nearer than t are swapped, the others moved by t.

    The same as the published w X + (1 − w) θ_0 with w = min(1, t / |τ|).
    """

    def program(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> Contest:
        return Contest((1.0,) * len(weights), "clamped", bound=parameters["t"])


@dataclass(frozen=True)
class _Importance:
    """How the importance of an element follows from its delta.

    Attributes:
        divergence: float32 [*shape[:-1], 1], KL(softmax X ‖ softmax θ_0) along the last dimension.
        median, spread: of |τ| · divergence; the spread is the range between the quartiles.
    """

    divergence: Tensor
    median: float
    spread: float


class _ArceeFusion:
    """τ where |τ| · KL(softmax X ‖ softmax θ_0) ≥ median + c · interquartile range, over the tensor."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> _Importance:
        delta = deltas[0]
        if not delta.numel():
            return _Importance(delta, 0.0, 0.0)
        base = context.statistics.base()
        divergence = _divergences(base.reshape(-1, _width(base)), delta.reshape(-1, _width(base)))
        divergence = divergence.view(*delta.shape[:-1], 1) if delta.dim() else divergence.view(())
        importance = (delta.abs() * divergence).flatten()
        last = importance.numel() - 1
        lower, median, upper = (float(importance.kthvalue(last * k // 4 + 1).values) for k in (1, 2, 3))
        return _Importance(divergence, median, upper - lower)

    def combine(self, deltas: Tensor, prepared: _Importance, weights: Tensor, parameters: Parameters) -> Tensor:
        threshold: float = prepared.median + parameters["c"] * prepared.spread
        return deltas[0] * (deltas[0].abs() * prepared.divergence >= threshold)


def _width(tensor: Tensor) -> int:
    return tensor.shape[-1] if tensor.dim() else 1


def _divergences(base: Tensor, delta: Tensor) -> Tensor:
    """float32 [rows]: Σ p log(p / q) of the rows of base + delta [rows, width] against those of the base.

    In float64: between a model and its fine-tune the divergence lies near float32's rounding of its terms.
    """
    step = max(1, _CHUNK // max(1, base.shape[1]))
    found = []
    for start, moved in zip(torch.split(base, step), torch.split(delta, step), strict=True):
        q = start.double().softmax(-1).add_(_SMOOTHING)
        p = start.double().add_(moved).softmax(-1).add_(_SMOOTHING)
        terms = p * (p / q).log_()
        found.append(steady_sum(terms).view(1) if len(terms) == 1 else terms.sum(-1))
    return torch.cat(found).float()


nearswap: ElementwiseMethod = _NearSwap()
arcee_fusion: DeltaMethod = _ArceeFusion()
