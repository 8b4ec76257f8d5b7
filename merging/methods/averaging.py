"""Methods that are weighted averages of whole models: one pass over memory each."""

import math
from collections.abc import Sequence

from torch import Tensor

from merging.methods.contract import LinearMethod, Parameters


class _Linear:
    """Σ w_t X_t / Σ w_t (model soups, arXiv:2203.05482)."""

    needs_gram = False

    def coefficients(self, weights: Sequence[float], parameters: Parameters, gram: Tensor | None) -> list[float]:
        total = math.fsum(weights)
        return [0.0, *(weight / total for weight in weights)]


class _TaskArithmetic:
    """θ_0 + λ Σ w_t τ_t (arXiv:2212.04089), so c_0 = 1 − λ Σ w_t."""

    needs_gram = False

    def coefficients(self, weights: Sequence[float], parameters: Parameters, gram: Tensor | None) -> list[float]:
        return _around_base([parameters["lambda"] * weight for weight in weights])


class _ModelStock:
    """θ_0 + λ t · mean(τ), t = T c / (1 + (T − 1) c), c the mean cosine between two deltas (arXiv:2403.19522).

    A negative c (t would push away from the experts) counts as 0, which keeps t in [0, 1]: the base comes back.
    """

    needs_gram = True

    def coefficients(self, weights: Sequence[float], parameters: Parameters, gram: Tensor | None) -> list[float]:
        if gram is None:
            raise ValueError("model_stock needs the Gram matrix")
        experts = len(gram) - 1
        cosine = max(0.0, _mean_cosine(gram[1:, 1:].tolist()))
        t = experts * cosine / (1 + (experts - 1) * cosine)
        return _around_base([parameters["lambda"] * t / experts] * experts)


class _LayerSwap:
    """The one expert with a weight above zero, whole (arXiv:2410.01335)."""

    needs_gram = False

    def coefficients(self, weights: Sequence[float], parameters: Parameters, gram: Tensor | None) -> list[float]:
        if sum(weight > 0 for weight in weights) != 1:
            raise ValueError(f"layer_swap takes one expert a group, got weights {list(weights)}")
        return [0.0, *(float(weight > 0) for weight in weights)]


def _around_base(of_deltas: list[float]) -> list[float]:
    """Coefficients of (θ_0, X_1 … X_T) from those of (τ_1 … τ_T): they sum to 1."""
    return [1.0 - math.fsum(of_deltas), *of_deltas]


def _mean_cosine(products: list[list[float]]) -> float:
    """Mean over pairs i < j of ⟨τ_i, τ_j⟩ / (‖τ_i‖ ‖τ_j‖), 0 for a delta that is 0; products [T, T]."""
    norms = [math.sqrt(products[i][i]) for i in range(len(products))]
    pairs = [(i, j) for i in range(len(norms)) for j in range(i)]
    scales = [norms[i] * norms[j] for i, j in pairs]
    cosines = [products[i][j] / scale if scale > 0 else 0.0 for (i, j), scale in zip(pairs, scales, strict=True)]
    return min(1.0, math.fsum(cosines) / len(cosines))


linear: LinearMethod = _Linear()
task_arithmetic: LinearMethod = _TaskArithmetic()
model_stock: LinearMethod = _ModelStock()
layer_swap: LinearMethod = _LayerSwap()
