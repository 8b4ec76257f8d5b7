"""Arithmetic on matrices of low rank that are kept as factors, τ = up · down: sums, truncation, extraction.

All float64, whatever comes in, as in `merging.linalg`. No matrix [out, in] is formed but where one is given.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from merging.linalg import svd

# Share of the largest singular value up to which a direction of factors is rounding noise of float64.
_NOISE = 1e-13


class Truncated(NamedTuple):
    """A matrix of low rank, and how much of what it was made from it holds.

    Attributes:
        up: float64 [out, k], columns orthogonal, largest first.
        down: float64 [k, in], rows orthogonal; both factors carry the root of every singular value.
        energy: Σ σ² of all directions.
        kept: Σ σ² of the k that are left; the squared error is the difference (Eckart and Young).
    """

    up: Tensor
    down: Tensor
    energy: float
    kept: float

    @property
    def share(self) -> float:
        """The share of the energy that is left; 1 for a matrix of zeros."""
        return self.kept / self.energy if self.energy else 1.0


def concatenate(factors: Sequence[tuple[Tensor, Tensor]], weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Σ w_t up_t · down_t as one pair of factors, exactly.

    Args:
        factors: one pair or more, up_t [out, r_t] and down_t [r_t, in].
        weights: one a pair; 0 leaves it out of the sum, not of the rank.

    Returns:
        float64 [out, Σ r_t] and [Σ r_t, in].
    """
    ups = [up.double() * weight for (up, _), weight in zip(factors, weights, strict=True)]
    return torch.cat(ups, 1), torch.cat([down.double() for _, down in factors])


def recompress(up: Tensor, down: Tensor, rank: int | None = None, energy: float = 1.0) -> Truncated:
    """The best approximation of up · down, by a singular value decomposition of what is between two QR factors.

    O((out + in) R² + R³) for factors of rank R.

    Args:
        up: [out, R].
        down: [R, in].
        rank: how many directions to keep at most.
        energy: keep the fewest directions that hold this share of Σ σ², in (0, 1].
    """
    left, upper = torch.linalg.qr(up.double())
    right, lower = torch.linalg.qr(down.double().mT)
    core = _truncated(upper @ lower.mT, rank, energy)
    return core._replace(up=left @ core.up, down=core.down @ right.mT)


def extract(delta: Tensor, energy: float = 1.0, rank: int | None = None) -> Truncated:
    """A LoRA of a dense delta [out, in]: its first singular directions.

    Args:
        delta: finite.
        energy: keep the fewest directions that hold this share of Σ σ², in (0, 1].
        rank: how many directions to keep at most.
    """
    return _truncated(delta, rank, energy)


def _truncated(matrix: Tensor, rank: int | None, energy: float) -> Truncated:
    if not 0.0 < energy <= 1.0 or (rank is not None and rank < 0):
        raise ValueError(f"an energy of {energy} is not in (0, 1], or a rank of {rank} is negative")
    factors = svd(matrix, _NOISE)
    squares = factors.values.square()
    sums = squares.cumsum(0)
    total = float(sums[-1]) if len(sums) else 0.0
    enough = len(sums) if energy == 1.0 else int((sums < energy * total).count_nonzero()) + 1
    count = min(enough, len(sums), len(sums) if rank is None else rank)
    roots = factors.values[:count].sqrt()
    kept = float(sums[count - 1]) if count else 0.0
    return Truncated(factors.left[:, :count] * roots, roots[:, None] * factors.right[:count], total, kept)
