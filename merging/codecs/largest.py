"""The elements of a delta that are largest in magnitude: what sparse codecs keep."""

from typing import NamedTuple

from torch import Tensor

from merging import kernel
from merging.methods.sparse import kept_count


class Kept(NamedTuple):
    """The elements that are kept of a delta.

    Attributes:
        indices: int64 [count], flat, ascending.
        values: float32 [count], τ there; none is 0.
    """

    indices: Tensor
    values: Tensor


def largest(base: Tensor, expert: Tensor, density: float) -> Kept:
    """Exactly the max(1, ⌊density · n⌋) largest |τ|, of equal ones those of the lowest indices.

    Those that are 0 are left out: to keep them changes nothing.

    Args:
        base, expert: [*shape], finite.
        density: 0 < density ≤ 1.
    """
    delta = expert.float().sub(base.float()).flatten()
    cut = kernel.cut(base, expert, kept_count(density, delta.numel()))
    magnitudes = delta.abs()
    mask = magnitudes > cut.value
    through = int(cut.index) + 1
    mask[:through] |= magnitudes[:through] == cut.value
    indices = mask.logical_and_(magnitudes > 0).nonzero().flatten()
    return Kept(indices, delta[indices])
