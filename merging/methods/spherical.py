"""Interpolation along the sphere between two models."""

import math
from collections.abc import Sequence

from torch import Tensor

from merging.methods.contract import LinearMethod, Parameters

_COLINEAR = 0.9995  # above this |cosine| the arc is a line (below it, sin Ω > 0.03)


class _Slerp:
    """[sin((1−t)Ω) X_1 + sin(tΩ) X_2] / sin Ω, cos Ω = ⟨X_1, X_2⟩ / (‖X_1‖ ‖X_2‖) (doi:10.1145/325165.325242).

    The angle is that of the normalised weights, the combined ones are not normalised; t = w_2 / (w_1 + w_2).
    Nearly colinear models — fine-tunes of one base whose deltas are below 2% mostly are — and a model that is
    zero interpolate linearly. So do opposite ones, whose arc is undefined: at X_2 = −X_1 and t = ½ that is 0.
    """

    needs_gram = True

    def coefficients(self, weights: Sequence[float], parameters: Parameters, gram: Tensor | None) -> list[float]:
        if len(weights) == 1:
            return [0.0, 1.0]
        if gram is None:
            raise ValueError("slerp needs the Gram matrix")
        first, second = weights
        t = second / (first + second)
        cosine = _cosine(gram.tolist())
        if abs(cosine) > _COLINEAR:
            return [0.0, 1.0 - t, t]
        angle = math.acos(cosine)
        return [0.0, math.sin((1.0 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)]


def _cosine(gram: list[list[float]]) -> float:
    """cos(X_1, X_2) from the products [3, 3] of (θ_0, τ_1, τ_2); 1 (no arc) if either is 0."""

    def product(i: int, j: int) -> float:
        return math.fsum((gram[0][0], gram[0][i], gram[0][j], gram[i][j]))

    scale = math.sqrt(max(0.0, product(1, 1))) * math.sqrt(max(0.0, product(2, 2)))
    return product(1, 2) / scale if scale > 0 else 1.0


slerp: LinearMethod = _Slerp()
