"""What a merge does in which the experts compete for every element, as a record.

The meaning, element by element. Everything is float32 and every operation is rounded on its own, so that every
interpreter gives the same bits; sums start from 0 and run over the experts in order:

    τ_t = X_t − θ_0,   v_t = τ_t · w_t,   V = Σ v_t,   high = max(0, v_1 … v_T),   low = min(0, v_1 … v_T)

    furthest   u = high if high ≥ −low else low
    elected    u = high if V ≥ 0 else low
    shared     u = V · [Σ_t [|v_t| > |V − v_t| · bound] ≥ fewest]
    clamped    u = Σ (min(max(v_t, −bound), bound) + v_t · 0)
    erased     s = +1 if Σ τ_t ≥ 0 else −1;  a_t = max(0, (τ_t · s) · m), m the mask as 1 or 0
               u = (Σ a_t · w_t) · s / Σ_{t: a_t > 0} w_t
    alone      c_t = 1 if w_t ≠ 0 and not |τ_t| ≤ bound, else 0
               u = Σ (τ_t · c_t) · w_t / Σ c_t w_t, times f_t where expert t alone has c_t = 1
    out = θ_0 + u · scale                              rounded to the stored dtype, then converted to out's

with f_t = 1 + r · min(α, shared_t / max(1, own_t)), own_t the number of elements of the tensor that expert t alone
changed, shared_t that of those it changed with others. A denominator smaller than 1e-30 in size counts as 1.

NaN and infinity reach the result: masks multiply, and `low` is NaN where a v_t is (no comparison with NaN holds, so
that `low` is what both of its rules then take).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Rule = Literal["furthest", "elected", "shared", "clamped", "erased", "alone"]


@dataclass(frozen=True, eq=False)
class Contest:
    """How one tensor is merged; the module's docstring says what it means.

    Attributes:
        weights: w_t, one per expert in the experts' order.
        rule: who wins an element.
        scale: λ.
        bound: of `shared`, `clamped` and `alone`; not negative.
        fewest: of `shared`.
        mask: of `erased`: bool, with as many elements as the tensor; None: all of them.
        strength: of `alone`: r and α.
    """

    weights: tuple[float, ...]
    rule: Rule
    scale: float = 1.0
    bound: float = 0.0
    fewest: int = 0
    mask: Tensor | None = None
    strength: tuple[float, float] = (0.0, 0.0)

    def __post_init__(self) -> None:
        if self.mask is not None and self.mask.dtype != torch.bool:
            raise ValueError(f"a mask is bool, not {self.mask.dtype}")
        if not self.bound >= 0.0:
            raise ValueError(f"{self.bound} is no bound of magnitudes")

    def factors(self, changed: Sequence[int], own: Sequence[int]) -> tuple[float, ...]:
        """f_t, from the numbers of elements that each expert changed, and of those that it alone did."""
        r, most = self.strength
        pairs = zip(changed, own, strict=True)
        return tuple(1.0 + r * min((count - alone) / max(alone, 1), most) for count, alone in pairs)
