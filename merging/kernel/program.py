"""What a fused merge of one tensor does, as records: which elements of each delta are kept, and how they are joined.

The meaning, element by element. Everything is float32 and every operation is rounded on its own (no fused multiply
and add), so that every interpreter gives the same bits:

    τ_t = X_t − θ_0
    m_t = 1 or 0: on the upper side of `above`, not on the upper side of `below`, and drawn by `chance`
    v_t = (τ_t · f_t / p_t) · (m_t · w_t)                 f_t: `factor`; p_t: the probability, if the chance rescales
    sum            u = Σ v_t
    mean           u = Σ v_t / Σ m_t w_t
    elected_sum    u = Σ_{t agrees} v_t                   s = +1 if Σ v_t ≥ 0 else −1;  t agrees: v_t · s > 0
    elected_mean   u = Σ_{t agrees} v_t / Σ_{t agrees} w_t
    out = θ_0 + scale · (u / divisor)                     rounded to the stored dtype, then converted to out's

Where all elements of an expert have one probability, f_t / p_t is one number, rounded once, and multiplies.
Sums start from 0 and run over the experts in order; a denominator smaller than 1e-30 in size counts as 1. Masks
multiply, and do so last, so NaN and infinity in a delta, or what overflows on the way, reach the result (0 · NaN is
NaN) even where the mask drops them; an election over a sum that is not finite gives NaN.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Join = Literal["sum", "elected_sum", "elected_mean", "mean"]

# A denominator smaller than this in size is over nobody: it counts as 1.
NOBODY = 1e-30


@dataclass(frozen=True, eq=False)
class Cut:
    """A place in the order of |τ|: larger magnitudes first, of equal ones the lower flat index first.

    There is one place per row of the tensor seen as [rows, n / rows]. Element i of row r is on the upper side if
    |τ| > value[r], or |τ| = value[r] and i ≤ index[r]. NaN is larger than every number.

    Attributes:
        value: float32 [rows], ≥ 0.
        index: int64 [rows], an index within the row; −1: none of the equal ones.
    """

    value: Tensor
    index: Tensor

    def __post_init__(self) -> None:
        if self.value.dtype != torch.float32 or self.index.dtype != torch.int64 or self.value.ndim != 1:
            raise ValueError("a cut has a float32 value and an int64 index per row")
        if self.value.shape != self.index.shape:
            raise ValueError(f"{len(self.value)} values, but {len(self.index)} indices")


@dataclass(frozen=True, eq=False)
class Chance:
    """Keeps element i with probability p_i, drawn by its flat index in the tensor (see `merging.kernel.draws`).

    p_i = low + step · rank_i with step = (high − low) / (width − 1) rounded to float32, which runs from `low` for the
    row's smallest magnitude to `high` for its largest; without ranks p_i = low, in rows of one element the middle.

    Attributes:
        key: of the draw, 64 bits.
        low, high: probabilities, 0 ≤ p ≤ 1, and above 0 if `rescale`.
        ranks: [n], uint16 or int32: the rank of |τ_i| in its row, ascending (see `merging.kernel.ranks`).
        width: elements of a row.
        rescale: divide what is kept by p_i, so that the expectation is the whole delta.
    """

    key: int
    low: float
    high: float
    ranks: Tensor | None = None
    width: int = 1
    rescale: bool = True

    def __post_init__(self) -> None:
        least, most = min(self.low, self.high), max(self.low, self.high)
        if not 0.0 <= least <= most <= 1.0 or (self.rescale and least == 0.0):
            raise ValueError(f"probabilities {self.low} to {self.high} are outside 0 to 1, or 0 and divided by")

    @property
    def even(self) -> bool:
        """Whether all elements have one probability."""
        return self.ranks is None or self.width == 1

    @property
    def first(self) -> float:
        """The probability of rank 0."""
        return (self.low + self.high) / 2 if self.ranks is not None and self.width == 1 else self.low

    @property
    def step(self) -> float:
        """What each rank adds to the probability."""
        return 0.0 if self.even else (self.high - self.low) / (self.width - 1)


@dataclass(frozen=True, eq=False)
class Keep:
    """What is kept of one expert's delta.

    Attributes:
        weight: w_t.
        above: only elements on the upper side of this cut ...
        below: ... and not on the upper side of this one.
        chance: ... and drawn; None: all of them.
        factor: what is kept is multiplied by this (a ratio of norms, say).
    """

    weight: float
    above: Cut | None = None
    below: Cut | None = None
    chance: Chance | None = None
    factor: float = 1.0

    @property
    def multiplier(self) -> float:
        """What every kept element is multiplied by."""
        chance = self.chance
        return self.factor / chance.first if chance is not None and chance.rescale and chance.even else self.factor


@dataclass(frozen=True, eq=False)
class Program:
    """How one tensor is merged; the module's docstring says what it means.

    Attributes:
        keeps: one per expert, in the experts' order.
        join: how the experts' elements become one.
        scale: λ.
        divisor: what the join is divided by before λ (the sum of the weights, say).
    """

    keeps: tuple[Keep, ...]
    join: Join
    scale: float = 1.0
    divisor: float = 1.0
