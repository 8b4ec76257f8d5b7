"""Methods in which the experts' deltas compete for every element; nothing is prepared.

A weight scales its expert's delta before the competition, v_t = w_t τ_t: with weights of 1 these are the papers'
methods, and a weight of 0 leaves an expert out. NaN and infinity reach the result: extremes carry them on, masks
multiply.
"""

from collections.abc import Sequence

from merging.kernel.competing import Contest
from merging.methods.contract import ElementwiseMethod, Parameters, TensorContext


class _MagMax:
    """λ · v_{argmax_t |v_t|} (arXiv:2407.06322, equation 2); of opposite equals the positive one."""

    def program(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> Contest:
        return Contest(tuple(weights), "furthest", parameters["lambda"])


class _Emr:
    """λ · s · max_{t: sign v_t = s} |v_t|, s = sign(Σ v_t) (arXiv:2405.17461, "elect"); a tied vote elects +."""

    def program(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> Contest:
        return Contest(tuple(weights), "elected", parameters["lambda"])


class _Consensus:
    """λ · v ⊙ [Σ_t M_t ≥ k], v = Σ v_t, M_t = |v_t| > λ_m |v − v_t| (arXiv:2405.07813, equations 4 and 6)."""

    def program(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> Contest:
        fewest = min(parameters["k"], sum(weight != 0.0 for weight in weights))
        return Contest(tuple(weights), "shared", parameters["lambda"], parameters["lambda_m"], fewest)


magmax: ElementwiseMethod = _MagMax()
emr: ElementwiseMethod = _Emr()
consensus: ElementwiseMethod = _Consensus()
