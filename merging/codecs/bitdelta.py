"""One bit an element: τ ≈ α · sign(τ) with α = mean |τ|, the L2-optimal scale (BitDelta, arXiv:2402.10193).

For the matrices of linear maps, alone or in a stack; other tensors are kept whole, as the paper does. Scales are not
distilled afterwards.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from merging.codecs.bits import pack, packed_size, unpack
from merging.codecs.contract import Codec, Numbers, Packed
from merging.codecs.fitting import fits, of_shape, only
from merging.codecs.matrices import matrices
from merging.codecs.whole import Whole
from merging.methods.contract import Role
from merging.methods.primitives import steady_sum


@dataclass(frozen=True, eq=False)
class Signs:
    """τ = scale · sign.

    Attributes:
        shape: [..., rows, columns].
        signs: uint8 [⌈n / 8⌉], a 1 for +.
        scale: float32 [..., 1, 1], or [..., rows, 1]: one a matrix, or one a row.
    """

    shape: tuple[int, ...]
    signs: Tensor
    scale: Tensor

    @property
    def payload(self) -> Mapping[str, Tensor]:
        """Signs and scales."""
        return {"signs": self.signs, "scale": self.scale}

    @property
    def numbers(self) -> Numbers:
        """None."""
        return {}

    def expert(self, base: Tensor) -> Tensor:
        """θ_0 ± α, float32."""
        flags = unpack(self.signs, of_shape(base, self.shape).numel()).view(self.shape)
        return flags.to(torch.float32).mul_(2.0).sub_(1.0).mul_(self.scale).add_(base)

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Signs":
        """The same with its payload elsewhere."""
        return Signs(self.shape, move(self.signs), move(self.scale))


class _BitDelta:
    def pack(self, base: Tensor, expert: Tensor, role: Role, settings: Mapping[str, float]) -> Packed:
        if role not in ("matrix", "stack"):
            return Whole(expert)
        delta = expert.float() - base.float()
        scale = _row_means(delta) if settings["rows"] else _matrix_means(delta)
        return Signs(tuple(delta.shape), pack(delta.flatten() >= 0.0), scale.float())

    def unpack(self, shape: tuple[int, ...], payload: Mapping[str, Tensor], numbers: Numbers) -> Packed:
        only(payload, numbers, ("signs", "scale"))
        if len(shape) < 2:
            raise ValueError(f"{list(shape)} is the shape of no matrix")
        rows = payload["scale"].shape[-2:-1] == shape[-2:-1]
        scale = fits("scale", payload["scale"], (*shape[:-2], shape[-2] if rows else 1, 1), torch.float32)
        return Signs(shape, fits("signs", payload["signs"], (packed_size(prod(shape)),), torch.uint8), scale)


def _row_means(delta: Tensor) -> Tensor:
    """The mean |τ| of each row, float64 [..., rows, 1]; 0 of nothing."""
    return delta.abs().sum(-1, keepdim=True, dtype=torch.float64).div_(max(1, delta.shape[-1]))


def _matrix_means(delta: Tensor) -> Tensor:
    """The mean |τ| of each matrix, float64 [..., 1, 1]; 0 of nothing."""
    parts = matrices(delta.abs())
    means = torch.empty(len(parts), dtype=torch.float64, device=delta.device)
    for place, part in enumerate(parts):
        means[place] = steady_sum(part) / max(1, part.numel())
    return means.view(*delta.shape[:-2], 1, 1)


bitdelta: Codec = _BitDelta()
