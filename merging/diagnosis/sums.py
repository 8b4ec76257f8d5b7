"""What is summed over the elements of any part of a model, and the figures that follow from the sums.

Sums of parts add up to the sums of the whole, so one pass over the tensors answers for each layer, each module and
the whole model.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from merging.diagnosis.magnitudes import bins_of, top_bins

TOP_SHARE = 0.1


@dataclass(frozen=True)
class Sums:
    """Sums over elements; τ_t is an expert's delta. All float64. An expert that lacks a tensor adds nothing for it.

    Attributes:
        gram: inner products of (θ_0, τ_1 … τ_T), [T+1, T+1].
        base: Σ θ_0² over the elements that the expert has too, [T].
        elements, unchanged: elements of the expert, and those exactly as in the base, [T].
        absolute: Σ |τ_t|, [T].
        moved, opposed: elements that both experts of a pair change, and those that they change in opposite
            directions, [T, T].
        products: Σ |τ_i τ_j|, [T, T].
        top, shared, chance: the elements among each tensor's largest tenth, [T]; those among both experts'
            largest, and how many that would be if they were spread at random, [T, T].
        broken: NaN and infinite elements of the base and each expert, [T+1]; they count as unchanged elsewhere.
    """

    gram: Tensor
    base: Tensor
    elements: Tensor
    unchanged: Tensor
    absolute: Tensor
    moved: Tensor
    opposed: Tensor
    products: Tensor
    top: Tensor
    shared: Tensor
    chance: Tensor
    broken: Tensor

    @classmethod
    def zero(cls, experts: int) -> "Sums":
        """The sums over nothing."""
        t, square = torch.zeros(experts, dtype=torch.float64), torch.zeros(experts, experts, dtype=torch.float64)
        wide = torch.zeros(experts + 1, dtype=torch.float64)
        return cls(torch.outer(wide, wide), t, t, t, t, square, square, square, t, square, square, wide)

    def __add__(self, other: "Sums") -> "Sums":
        return Sums(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def norms(self) -> Tensor:
        """‖τ_t‖, [T]."""
        return self.gram.diagonal()[1:].clamp(min=0).sqrt()

    @property
    def relative_norms(self) -> Tensor:
        """‖τ_t‖ / ‖θ_0‖, [T]; 0 where there is no base."""
        return _ratio(self.norms, self.base.sqrt())

    @property
    def cosines(self) -> Tensor:
        """cos(τ_i, τ_j), [T, T]; 0 with a delta of zero."""
        return _ratio(self.gram[1:, 1:], torch.outer(self.norms, self.norms)).clamp(-1, 1)

    @property
    def cosines_to_base(self) -> Tensor:
        """cos(X_t, θ_0), [T], over the elements that the expert has."""
        inner = self.base + self.gram[0, 1:]
        own = (self.base + 2 * self.gram[0, 1:] + self.gram.diagonal()[1:]).clamp(min=0)
        return _ratio(inner, (self.base * own).sqrt()).clamp(-1, 1)

    @property
    def conflicts(self) -> Tensor:
        """The share of the elements both move that they move in opposite directions, [T, T]."""
        return _ratio(self.opposed, self.moved)

    @property
    def weighted_conflicts(self) -> Tensor:
        """The same with |τ_i τ_j| as the weight of an element, [T, T]: what lies where both move far counts."""
        return _ratio((self.products - self.gram[1:, 1:]) / 2, self.products).clamp(0, 1)

    @property
    def overlaps(self) -> Tensor:
        """|A ∩ B| / min(|A|, |B|) of the largest tenths, [T, T]."""
        return _ratio(self.shared, torch.minimum(self.top[:, None], self.top[None]))

    @property
    def chance_overlaps(self) -> Tensor:
        """The overlap that sets of these sizes would have by chance, [T, T]."""
        return _ratio(self.chance, torch.minimum(self.top[:, None], self.top[None]))


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """Quotients, 0 where the divisor is 0."""
    return torch.where(below > 0, above / below.where(below > 0, torch.ones_like(below)), torch.zeros_like(above))


def sums_of(rows: Tensor, present: Tensor) -> Sums:
    """The sums over some elements, all but those over the largest.

    Args:
        rows: θ_0 and τ_1 … τ_T, float64 [T+1, n]; overwritten where not finite.
        present: 1 for an expert that has the tensor, else 0, float64 [T]; its deltas are 0 then.
    """
    broken = torch.zeros(rows.shape[0], dtype=torch.float64)
    if not torch.isfinite(rows.sum()):
        broken = (~torch.isfinite(rows)).sum(1).double()
        rows[:, ~torch.isfinite(rows[0])] = 0.0  # a delta from a broken base is broken too, through no fault of its own
        broken[1:] = (~torch.isfinite(rows[1:])).sum(1)
        rows[~torch.isfinite(rows)] = 0.0
    deltas = rows[1:]
    sizes, signs = deltas.abs(), deltas.sign().float()
    gram = rows @ rows.T
    moved, agreement = _inner(signs.abs()), _inner(signs)
    elements = present * rows.shape[1]
    none = torch.zeros_like(moved)
    return Sums(
        gram=gram,
        base=present * gram[0, 0],
        elements=elements,
        unchanged=elements - moved.diagonal(),
        absolute=sizes.sum(1),
        moved=moved,
        opposed=(moved - agreement) / 2,
        products=sizes @ sizes.T,
        top=torch.zeros_like(present),
        shared=none,
        chance=none,
        broken=broken,
    )


def top_sums(rows: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """How many of some elements are among each expert's largest, [T], and among those of both, [T, T].

    Args:
        rows: θ_0 and τ_1 … τ_T, float64 [T+1, n].
        thresholds: from which bin of magnitude on an element is among them, [T].
    """
    inner = _inner((bins_of(rows[1:].nan_to_num(0.0, 0.0, 0.0)) >= thresholds[:, None]).float())
    return inner.diagonal().clone(), inner


def thresholds_of(counts: Tensor) -> Tensor:
    """From which bin of magnitude on an element is among a tensor's largest tenth, [T]."""
    return top_bins(counts, TOP_SHARE)


def _inner(rows: Tensor) -> Tensor:
    """Inner products of rows of small whole numbers, exact as long as there are fewer than 2²⁴ columns."""
    return (rows @ rows.T).double()
