"""Methods in which the experts' deltas compete for every element; nothing is prepared.

A weight scales its expert's delta before the competition, v_t = w_t τ_t: with weights of 1 these are the papers'
methods, and a weight of 0 leaves an expert out. NaN and infinity reach the result: extremes carry them on, masks
multiply.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from merging.methods.contract import DeltaMethod, Parameters, TensorContext


class _Competition:
    """A DeltaMethod whose combine looks at one element of all experts at a time."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> None:
        return None


class _MagMax(_Competition):
    """λ · v_{argmax_t |v_t|} (arXiv:2407.06322, equation 2); of opposite equals the positive one."""

    def combine(self, deltas: Tensor, prepared: None, weights: Tensor, parameters: Parameters) -> Tensor:
        _, highest, lowest = _extremes(deltas, weights)
        return torch.where(highest >= -lowest, highest, lowest).mul_(parameters["lambda"])


class _Emr(_Competition):
    """λ · s · max_{t: sign v_t = s} |v_t|, s = sign(Σ v_t) (arXiv:2405.17461, "elect"); a tied vote elects +."""

    def combine(self, deltas: Tensor, prepared: None, weights: Tensor, parameters: Parameters) -> Tensor:
        total, highest, lowest = _extremes(deltas, weights)
        return torch.where(total >= 0.0, highest, lowest).mul_(parameters["lambda"])


class _Consensus(_Competition):
    """λ · v ⊙ [Σ_t M_t ≥ k], v = Σ v_t, M_t = |v_t| > λ_m |v − v_t| (arXiv:2405.07813, equations 4 and 6)."""

    def combine(self, deltas: Tensor, prepared: None, weights: Tensor, parameters: Parameters) -> Tensor:
        total = torch.zeros_like(deltas[0])
        for term in _scaled(deltas, weights):
            total.add_(term)
        users = torch.zeros_like(total)
        for term in _scaled(deltas, weights):
            users.add_(term.abs() > (total - term).abs_().mul_(parameters["lambda_m"]))
        fewest = min(parameters["k"], int(weights.count_nonzero()))
        return total.mul_(users >= fewest).mul_(parameters["lambda"])


class _Extremes(NamedTuple):
    """Σ v_t, max(0, v_1 … v_T) and min(0, v_1 … v_T), each [*shape]."""

    total: Tensor
    highest: Tensor
    lowest: Tensor


def _extremes(deltas: Tensor, weights: Tensor) -> _Extremes:
    total, highest, lowest = (torch.zeros_like(deltas[0]) for _ in range(3))
    for term in _scaled(deltas, weights):
        total.add_(term)
        torch.maximum(highest, term, out=highest)
        torch.minimum(lowest, term, out=lowest)
    return _Extremes(total, highest, lowest)


def _scaled(deltas: Tensor, weights: Tensor) -> Iterator[Tensor]:
    """v_t = w_t τ_t [*shape], one expert after another."""
    return (delta * weight for delta, weight in zip(deltas, weights.tolist(), strict=True))


magmax: DeltaMethod = _MagMax()
emr: DeltaMethod = _Emr()
consensus: DeltaMethod = _Consensus()
