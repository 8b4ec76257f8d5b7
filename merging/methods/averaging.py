"""Methods that are weighted averages of whole models: one pass over memory each."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from merging.methods import gram
from merging.methods.contract import LinearMethod, Over, Parameters, TensorContext

_TINY = 1e-8  # weights whose sum is below this have no sum to divide by
_FLOOR = 1e-6  # mergekit's least product of two deltas' lengths, and least denominator of t


class _Linear:
    """Σ w_t X_t / Σ w_t (model soups, arXiv:2203.05482)."""

    def coefficients(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> list[float]:
        return [0.0, *(_shares(weights) if parameters["normalize"] else weights)]


class _Uniform:
    """Σ X_t / T (arXiv:2203.05482)."""

    def coefficients(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> list[float]:
        return [0.0, *([1.0 / len(weights)] * len(weights))]


class _WiseFt:
    """(1 − α) θ_0 + α Σ w_t X_t / Σ w_t (arXiv:2109.01903): at α = 0 and α = 1 the ends themselves, to the bit."""

    def coefficients(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> list[float]:
        alpha = parameters["alpha"]
        return [1.0 - alpha, *(alpha * share for share in _shares(weights))]


class _Ema:
    """s_1 = X_1, s_k = (1 − r) s_{k−1} + r X_k along a sequence of checkpoints (arXiv:2505.12082, EMA).

    In closed form checkpoint k of K weighs r (1 − r)^{K−k}, and the first (1 − r)^{K−1}. Debiased, the first is one
    like the others and the weights are divided by their sum, 1 − (1 − r)^K. Weights are positions: their order
    counts, not their distances. Experts at one position are one checkpoint, their mean.
    """

    def coefficients(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> list[float]:
        positions = sorted(set(weights))
        decay = 1.0 - parameters["rate"]
        powers = [decay ** (len(positions) - 1 - k) for k in range(len(positions))]
        if parameters["debias"]:
            of_step = _shares(powers)  # in proportion to the powers, whatever r: at r = 0 the plain mean
        else:
            of_step = [powers[0], *(parameters["rate"] * power for power in powers[1:])]
        share = dict(zip(positions, of_step, strict=True))
        return [0.0, *(share[position] / weights.count(position) for position in weights)]


class _TaskArithmetic:
    """θ_0 + λ Σ w_t τ_t (arXiv:2212.04089), so c_0 = 1 − λ Σ w_t."""

    def coefficients(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> list[float]:
        total = math.fsum(weights) if parameters["normalize"] else 1.0
        scale = parameters["lambda"] / (total if abs(total) >= _TINY else 1.0)
        return _around_base([scale * weight for weight in weights])


class _MetaGpt:
    """θ_0 + λ Σ ‖τ_t‖² / Σ_k ‖τ_k‖² · τ_t, norms over the model (arXiv:2406.11385)."""

    def coefficients(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> list[float]:
        squares = gram.of_deltas(gram.products(context, parameters["over"])).diagonal(dim1=1, dim2=2)[0].tolist()
        total = math.fsum(squares)
        scale = 0.0 if total == 0.0 else parameters["lambda"] / total
        return _around_base([scale * square for square in squares])


class _Lines:
    """θ_0 + (α + β · depth) Σ w_t τ_t / Σ w_t, depth from 0 (first layer) to 1 (last) (arXiv:2410.17146)."""

    def coefficients(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> list[float]:
        scale = parameters["alpha"] + parameters["beta"] * context.depth
        return _around_base([scale * w for w in (_shares(weights) if parameters["normalize"] else weights)])


class _ModelStock:
    """θ_0 + λ t · mean(τ), t = T c / (1 + (T − 1) c), c the mean cosine between two deltas (arXiv:2403.19522).

    A negative c (t would push away from the experts) counts as 0, which keeps t in [0, 1]: the base comes back.
    Unclamped, t extrapolates as in mergekit, whose floors under tiny lengths and denominators apply, too.
    """

    def coefficients(
        self, weights: Sequence[float], parameters: Parameters, context: TensorContext
    ) -> Sequence[float] | Tensor:
        over: Over = parameters["over"]
        inner = gram.of_deltas(gram.products(context, over))
        experts = inner.shape[1]
        _, between = gram.angles(inner, 0.0 if parameters["clamp"] else _FLOOR)
        cosine = gram.mean_cosine(between)
        if parameters["clamp"]:
            cosine = cosine.clamp_min(0.0)
        denominator = 1.0 + (experts - 1) * cosine
        t = torch.where(denominator.abs() < _FLOOR, 0.0, experts * cosine / denominator)
        each = (parameters["lambda"] * t / experts)[:, None].expand(-1, experts)
        return gram.spread(gram.around_base(each), context, over)


def _shares(weights: Sequence[float]) -> list[float]:
    """The weights divided by their sum."""
    total = math.fsum(weights)
    return [weight / total for weight in weights]


def _around_base(of_deltas: list[float]) -> list[float]:
    """Coefficients of (θ_0, X_1 … X_T) from those of (τ_1 … τ_T): they sum to 1."""
    return [1.0 - math.fsum(of_deltas), *of_deltas]


linear: LinearMethod = _Linear()
uniform: LinearMethod = _Uniform()
wise_ft: LinearMethod = _WiseFt()
ema: LinearMethod = _Ema()
task_arithmetic: LinearMethod = _TaskArithmetic()
metagpt: LinearMethod = _MetaGpt()
lines: LinearMethod = _Lines()
model_stock: LinearMethod = _ModelStock()
