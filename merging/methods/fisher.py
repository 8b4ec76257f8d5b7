"""Fisher-weighted averaging: each element is averaged by how sure each expert is of it (arXiv:2111.09832)."""

import torch
from torch import Tensor

from merging.methods.contract import DeltaMethod, Measured, Parameters, TensorContext


class _Fisher:
    """Σ w_t (F_t + ε) τ_t / Σ w_t (F_t + ε), F_t the diagonal Fisher information of expert t (equation 5).

    F_t is brought to one scale for all experts first, by its norm or its mean over the whole model; ε is a multiple of
    its mean. Where no expert was measured the weighted mean of the deltas remains.
    """

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> tuple[Tensor, Tensor]:
        """F_t on one scale, float32 [T, *shape], and its mean over the model, [T]."""
        measured, count = context.measured, len(deltas)
        found = [measured.tensor("fisher", t) for t in range(count)]
        if any(each is None for each in found):
            return torch.zeros_like(deltas), torch.ones(count)
        scales = [_scale(measured, t, parameters["balance"]) for t in range(count)]
        means = torch.tensor([measured.figure("fisher", t, "mean") / scale for t, scale in enumerate(scales)])
        fisher = torch.empty_like(deltas)
        for row, each, scale in zip(fisher, found, scales, strict=True):
            assert each is not None
            row.copy_(each).div_(scale)
        return fisher, means

    def combine(
        self, deltas: Tensor, prepared: tuple[Tensor, Tensor], weights: Tensor, parameters: Parameters
    ) -> Tensor:
        """The update [*shape]."""
        fisher, means = prepared
        total, share = torch.zeros_like(deltas[0]), torch.zeros_like(deltas[0])
        for delta, own, mean, weight in zip(deltas, fisher, means.tolist(), weights.tolist(), strict=True):
            if weight == 0.0:
                continue
            sure = (own + parameters["floor"] * mean).mul_(weight)
            share += sure
            total += sure.mul_(delta)
        return total.div_(share).mul_(parameters["lambda"])


def _scale(measured: Measured, expert: int, balance: str) -> float:
    if balance == "none":
        return 1.0
    return measured.figure("fisher", expert, balance) or 1.0  # an expert without any gradient is sure of nothing


fisher: DeltaMethod = _Fisher()
