"""LM-Cocktail (arXiv:2311.13534): experts averaged by how well each of them answers a few documents already.

Coefficients are w_t exp(−ℓ_t / T) over their sum, ℓ_t the expert's mean loss in nats a token. At a low temperature T
the best expert takes all, at a high one they are averaged by their weights alone.
"""

import math
from collections.abc import Sequence

from merging.methods.contract import LinearMethod, Parameters, TensorContext


class _Cocktail:
    """Σ w_t e^(−ℓ_t/T) X_t / Σ w_t e^(−ℓ_t/T)."""

    def coefficients(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> list[float]:
        losses = [context.measured.figure("loss", t, "loss") for t in range(len(weights))]
        least = min(loss for loss, weight in zip(losses, weights, strict=True) if weight)  # whose share is 1, not 0/0
        temperature = parameters["temperature"]
        shares = [
            weight * math.exp((least - loss) / temperature) if weight else 0.0
            for loss, weight in zip(losses, weights, strict=True)
        ]
        total = math.fsum(shares)
        return [0.0, *(share / total for share in shares)]


cocktail: LinearMethod = _Cocktail()
