"""Signs of the largest elements, all of one magnitude: τ ≈ α σ · sign(τ) on the top k (ComPEFT, arXiv:2311.13171).

σ is the standard deviation of the tensor's delta, not of the whole model's; vectors are kept whole: they weigh nothing.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.codecs.bits import pack, packed_size, unpack
from merging.codecs.contract import Codec, Numbers, Packed
from merging.codecs.fitting import fits, magnitude, only
from merging.codecs.golomb import Gaps, encode
from merging.codecs.largest import largest
from merging.codecs.sparse import added, stored_gaps
from merging.codecs.whole import Whole
from merging.methods.contract import Role
from merging.methods.primitives import steady_sum


@dataclass(frozen=True, eq=False)
class Ternary:
    """τ is 0, + magnitude or − magnitude.

    Attributes:
        shape: of the tensor.
        gaps: the flat indices of what is not 0.
        signs: uint8 [⌈count / 8⌉], a 1 for +.
        magnitude: α σ.
    """

    shape: tuple[int, ...]
    gaps: Gaps
    signs: Tensor
    magnitude: float

    @property
    def payload(self) -> Mapping[str, Tensor]:
        """Indices and signs."""
        return {"high": self.gaps.high, "low": self.gaps.low, "signs": self.signs}

    @property
    def numbers(self) -> Numbers:
        """How many elements are not 0, and their magnitude."""
        return {"count": self.gaps.count, "magnitude": self.magnitude}

    def expert(self, base: Tensor) -> Tensor:
        """θ_0 + τ, float32."""
        signs = unpack(self.signs, self.gaps.count).to(torch.float32).mul_(2.0).sub_(1.0)
        return added(base, self.shape, self.gaps, signs.mul_(self.magnitude))

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Ternary":
        """The same with its payload elsewhere."""
        return Ternary(self.shape, self.gaps.moved(move), move(self.signs), self.magnitude)


class _ComPeft:
    def pack(self, base: Tensor, expert: Tensor, role: Role, settings: Mapping[str, float]) -> Packed:
        if role == "vector":
            return Whole(expert)
        kept, scale = largest(base, expert, settings["density"]), settings["scale"]
        size = scale * _deviation(base, expert) if scale else _mean(kept.values.abs())
        return Ternary(tuple(expert.shape), encode(kept.indices, expert.numel()), pack(kept.values > 0.0), size)

    def unpack(self, shape: tuple[int, ...], payload: Mapping[str, Tensor], numbers: Numbers) -> Packed:
        only(payload, numbers, ("high", "low", "signs"), ("count", "magnitude"))
        gaps = stored_gaps(shape, payload, numbers)
        signs = fits("signs", payload["signs"], (packed_size(gaps.count),), torch.uint8)
        return Ternary(shape, gaps, signs, magnitude(numbers, "magnitude"))


def _mean(values: Tensor) -> float:
    """The mean; 0 of nothing."""
    return float(steady_sum(values)) / max(1, values.numel())


def _deviation(base: Tensor, expert: Tensor) -> float:
    """The standard deviation of the delta, of all its elements, as a population."""
    delta = expert.double() - base.double()
    return math.sqrt(_mean(delta.sub_(_mean(delta)).square_()))


compeft: Codec = _ComPeft()
