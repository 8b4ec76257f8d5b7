"""What learned coefficients may be: a share of each expert, any numbers, none below 0, or a share of the base.

Each form has raw numbers, which Adam moves, and says by autograd what weights of the deltas follow from them: float64
[T, groups]. With λ_{t,g} the weight of expert t in group g, the candidate is θ₀ + Σ_t λ_{t,g} τ_t.
"""

from typing import Protocol

import torch
from torch import Tensor

MOST = 10.0
"""No coefficient is larger in size: a recipe would refuse it."""
_PULL = 1e-4  # of each block's share of the base toward their mean


class Form(Protocol):
    """How raw numbers become coefficients.

    Attributes:
        raw: float64, a leaf that gradients are taken by.
    """

    raw: Tensor

    def weights(self) -> Tensor:
        """λ [T, groups]."""
        ...

    def kept(self) -> Tensor:
        """What an artefact keeps of each expert and group, [T, groups]."""
        ...

    def penalty(self) -> Tensor:
        """What is added to the loss, a scalar."""
        ...

    def settle(self) -> None:
        """Brings raw numbers back to where they may be."""
        ...


class Softmax:
    """λ_{t,g} = exp a_{t,g} / Σ_s exp a_{s,g}, equal at first: learned soups (arXiv:2203.05482, section J)."""

    def __init__(self, experts: int, groups: int) -> None:
        self.raw = torch.zeros(experts, groups, dtype=torch.float64, requires_grad=True)

    def weights(self) -> Tensor:
        """As `Form.weights`: none is negative, and those of a group sum to 1."""
        return self.raw.softmax(0)

    def kept(self) -> Tensor:
        """The weights."""
        return self.weights().detach()

    def penalty(self) -> Tensor:
        """None."""
        return torch.zeros((), dtype=torch.float64)

    def settle(self) -> None:
        """Every number may be."""


class Free:
    """λ_{t,g} itself, `start` at first and never below `least`: AdaMerging (arXiv:2310.02575)."""

    def __init__(self, experts: int, groups: int, start: float, least: float) -> None:
        self.raw = torch.full((experts, groups), start, dtype=torch.float64, requires_grad=True)
        self._least = least

    def weights(self) -> Tensor:
        """As `Form.weights`."""
        return self.raw

    def kept(self) -> Tensor:
        """The weights."""
        return self.raw.detach()

    def penalty(self) -> Tensor:
        """None."""
        return torch.zeros((), dtype=torch.float64)

    def settle(self) -> None:
        """Between `least` and `MOST`."""
        with torch.no_grad():
            self.raw.clamp_(self._least, MOST)


class Ratios:
    """λ_{t,k} = (1 − α_k) / T, α_k the base's share of block k: adaptive model averaging (arXiv:2309.06256).

    A penalty 1e-4 · Σ_k |α_k − α₀| pulls the shares together, as in the paper's code.
    """

    def __init__(self, experts: int, groups: int, mean: float, floor: float) -> None:
        self.raw = torch.zeros(groups, dtype=torch.float64, requires_grad=True)
        self._experts, self._mean, self._floor = experts, mean, floor

    def weights(self) -> Tensor:
        """As `Form.weights`: the experts count the same."""
        return ((1.0 - self._shares()) / self._experts).expand(self._experts, -1)

    def kept(self) -> Tensor:
        """α, the same behind every expert."""
        return self._shares().detach().expand(self._experts, -1)

    def penalty(self) -> Tensor:
        """As `Form.penalty`."""
        return _PULL * (self._shares() - self._mean).abs().sum()

    def settle(self) -> None:
        """Every number may be."""

    def _shares(self) -> Tensor:
        return ratios(self.raw, self._mean, self._floor)


def ratios(raw: Tensor, mean: float, floor: float) -> Tensor:
    """α_k = α₀ (σ(a_k) + ε) / mean_j (σ(a_j) + ε), whose mean is α₀ whatever a is.

    Args:
        raw: a, float64 [blocks].
        mean: α₀.
        floor: ε, which bounds how far two shares may lie apart.
    """
    sure = raw.sigmoid() + floor
    return mean * sure / sure.mean()
