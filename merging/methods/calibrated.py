"""Calibration-balanced averaging: experts are made equally confident before they are averaged.

The paper (arXiv:2309.17230, BANG) balances confidence while it fine-tunes; this balances what is there. Expert t's
logits are divided by the temperature T_t that was fitted for it, through its final norm: g_t becomes g_t / T_t, or with
an offset o that the model adds to it (g_t + o) / T_t − o.

With shares s_t = w_t / Σ w the balanced norm is Σ s_t g_t / T_t. To give the merge a temperature again it is multiplied
by a mean of the T_t. The weighted harmonic one, T = 1 / Σ (s_t / T_t), is taken: then the coefficients s_t T / T_t sum
to 1. So experts of equal norms keep their norm, and the merge the mean scale of the logits that `linear` gives it;
offsets cancel, Σ s_t T / T_t (g_t + o) − o = Σ s_t T / T_t g_t; and one expert that is too sure, however much, cannot
sharpen the merge beyond what the others' temperatures allow: T ≤ T_u / s_u for every expert u. By the arithmetic or
geometric mean it would grow without end.
"""

import math
from collections.abc import Sequence

from merging.errors import InvalidRecipe
from merging.methods.contract import LinearMethod, Parameters, TensorContext


class _Calibrated:
    """Σ w_t X_t / Σ w_t; in the final norm weights are w_t / T_t, T_t the expert's temperature."""

    def coefficients(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> list[float]:
        total = math.fsum(weights)
        shares = [weight / total for weight in weights]
        found = [context.measured.tensor("temperature", t) for t in range(len(weights))]
        temperatures = [each.tolist() for each in found if each is not None]
        if len(temperatures) < len(weights):
            return [0.0, *shares]
        balanced = [share / own for share, (own, _) in zip(shares, temperatures, strict=True)]
        if parameters["restore"]:
            total = math.fsum(balanced)
            return [0.0, *(each / total for each in balanced)]
        if any(offset for _, offset in temperatures):
            problem = f"would need a constant beside the average: the model adds 1 to {context.name}"
            raise InvalidRecipe("parameters.restore", False, problem, "set restore to true")
        return [0.0, *balanced]


calibrated: LinearMethod = _Calibrated()
