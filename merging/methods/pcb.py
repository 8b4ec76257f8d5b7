"""PCB-Merging (arXiv:2410.02396): parameters compete within their expert by size, between experts by agreement.

With N the min-max normalisation of one expert's elements to [0, 1] and τᶜ the delta with both tails of |τ| clipped:

    a_t = N(|τᶜ_t|),  z_t = sign(τ_t) ⊙ a_t                    size within the expert
    β_t = exp(T a_t²) ⊙ Σ_j tanh(z_t ⊙ z_j)                    times agreement with all experts
    s_t = N(β_t, the `ratio` largest alone)                    dropped elements get 0
    update = λ Σ_t w_t τᶜ_t ⊙ s_t / Σ_t s_t
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from merging.methods.contract import DeltaMethod, Parameters, TensorContext
from merging.methods.sparse import kept_count

_NOBODY = 1e-12  # Σ s below this: all dropped the element


@dataclass(frozen=True)
class _Scores:
    """The elements of one expert that are left, and how strongly.

    Attributes:
        low, high: what magnitudes are clipped to.
        index: int32 or int64 [kept], flat indices.
        score: float32 [kept], s above 0.
    """

    low: float
    high: float
    index: Tensor
    score: Tensor

    def clipped(self, delta: Tensor) -> Tensor:
        """τᶜ of elements of the expert's delta."""
        return delta.sign() * _clipped(delta, self.low, self.high)


class _Pcb:
    """PCB-Merging of one tensor."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> tuple[_Scores, ...]:
        flat = deltas.reshape(len(deltas), deltas[0].numel())
        if not flat.numel():
            return tuple(_Scores(0.0, 0.0, delta.int(), delta) for delta in flat)
        limits = [_limits(delta.abs(), parameters["clip"]) for delta in flat]
        standing = torch.empty_like(flat)  # z
        for row, delta, (low, high) in zip(standing, flat, limits, strict=True):
            magnitudes = _clipped(delta, low, high)
            torch.mul(delta.sign(), _normalised(magnitudes, magnitudes.amin(), magnitudes.amax()), out=row)
        return tuple(_scores(standing, t, limits[t], parameters["ratio"]) for t in range(len(flat)))

    def combine(self, deltas: Tensor, prepared: tuple[_Scores, ...], weights: Tensor, parameters: Parameters) -> Tensor:
        flat = deltas.reshape(len(deltas), deltas[0].numel())
        total, shares = torch.zeros_like(flat[0]), torch.zeros_like(flat[0])
        for delta, own, weight in zip(flat, prepared, weights.tolist(), strict=True):
            kept = own.clipped(delta.index_select(0, own.index)).mul_(own.score).mul_(weight)
            total.index_add_(0, own.index, kept)
            shares.index_add_(0, own.index, own.score)
        return total.div_(shares.clamp_(min=_NOBODY)).mul_(parameters["lambda"]).view_as(deltas[0])


def _limits(magnitudes: Tensor, clip: float) -> tuple[float, float]:
    """The magnitudes that ⌊clip · n⌋ elements lie below, and above."""
    size = magnitudes.numel()
    tail = min(int(clip * size), (size - 1) // 2)
    low, high = (float(magnitudes.kthvalue(k).values) for k in (tail + 1, size - tail))
    return low, high


def _clipped(delta: Tensor, low: float, high: float) -> Tensor:
    """|τᶜ|; an infinite magnitude becomes NaN instead of an ordinary number."""
    magnitudes = delta.abs()
    return magnitudes.clamp(low, high).add_(magnitudes.mul_(0.0))


def _normalised(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """(x − low) / (high − low), at least 0; without a range 1 for what reaches the top and 0 for the rest."""
    if bool(low == high):
        return (values >= high).float()
    return ((values - low) / (high - low)).clamp_(min=0.0)


def _scores(standing: Tensor, expert: int, limits: tuple[float, float], ratio: float) -> _Scores:
    """s of one expert from z [T, n]."""
    own = standing[expert]
    agreement = torch.zeros_like(own, dtype=torch.float64)  # exact: the experts' order does not matter
    for other in standing:
        agreement.add_((own * other).tanh_())
    balance = own.square().mul_(len(standing)).exp_().mul_(agreement.float())
    first_kept = balance.numel() - kept_count(ratio, balance.numel())  # in ascending order, from 0
    threshold = balance.kthvalue(max(first_kept, 1)).values
    score = _normalised(balance, threshold, balance.amax())
    index = score.nonzero().flatten()
    small = index.to(torch.int32) if balance.numel() < 2**31 else index
    return _Scores(*limits, small, score[index])


pcb: DeltaMethod = _Pcb()
