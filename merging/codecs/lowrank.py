"""Low rank: τ ≈ up · down, the truncated singular value decomposition of a delta, or the factors of a LoRA.

The codec takes the matrices of linear maps, alone or each of a stack; other tensors are kept whole, and so is what
would be no smaller.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.codecs.contract import Codec, Numbers, Packed
from merging.codecs.fitting import fits, of_shape, only, whole_number
from merging.codecs.matrices import matrices
from merging.codecs.whole import Whole
from merging.linalg import svd
from merging.methods.contract import Role

_DTYPES = (torch.bfloat16, torch.float16, torch.float32)  # of factors; LoRAs come in each


@dataclass(frozen=True)
class LowRank:
    """τ = up · down, or its transpose for a matrix that is stored [in, out]; or a stack of such.

    Attributes:
        up: [..., out, rank].
        down: [..., rank, in]; the scale of a LoRA is part of one of the two.
        transposed: whether the tensor is stored [..., in, out].
    """

    up: Tensor
    down: Tensor
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the expert's tensor."""
        out, inputs = self.up.shape[-2], self.down.shape[-1]
        return (*self.up.shape[:-2], *((inputs, out) if self.transposed else (out, inputs)))

    @property
    def payload(self) -> Mapping[str, Tensor]:
        """The two factors."""
        return {"up": self.up, "down": self.down}

    @property
    def numbers(self) -> Numbers:
        """Which way the tensor lies."""
        return {"transposed": int(self.transposed)}

    def delta(self) -> Tensor:
        """τ [*shape], float32."""
        update = self.up.float() @ self.down.float()
        return update.mT if self.transposed else update

    def expert(self, base: Tensor) -> Tensor:
        """θ_0 + τ, float32."""
        return self.delta().add(of_shape(base, self.shape).to(torch.float32)).contiguous()

    def moved(self, move: Callable[[Tensor], Tensor]) -> "LowRank":
        """The same with its factors elsewhere."""
        return LowRank(move(self.up), move(self.down), self.transposed)


class _LowRank:
    def pack(self, base: Tensor, expert: Tensor, role: Role, settings: Mapping[str, float]) -> Packed:
        if role not in ("matrix", "stack"):
            return Whole(expert)
        parts = matrices(expert.float() - base.float())
        factors = [_truncated(part, settings["energy"], int(settings["rank"])) for part in parts]
        dtype = torch.float32 if settings["bits"] == 32 else torch.bfloat16
        rank = max((right.shape[0] for _, right in factors), default=0)
        count, rows, columns = parts.shape
        up = torch.zeros((count, rows, rank), dtype=dtype, device=parts.device)
        down = torch.zeros((count, rank, columns), dtype=dtype, device=parts.device)
        for place, (left, right) in enumerate(factors):  # a matrix of lower rank than the stack's has zeros
            up[place, :, : left.shape[1]], down[place, : right.shape[0]] = left, right
        lead = expert.shape[:-2]
        packed = LowRank(up.view(*lead, rows, rank), down.view(*lead, rank, columns))
        return packed if up.nbytes + down.nbytes < expert.nbytes else Whole(expert)

    def unpack(self, shape: tuple[int, ...], payload: Mapping[str, Tensor], numbers: Numbers) -> Packed:
        only(payload, numbers, ("up", "down"), ("transposed",))
        transposed = bool(whole_number(numbers, "transposed", 1))
        if len(shape) < 2:
            raise ValueError(f"{list(shape)} is the shape of no matrix")
        out, inputs = (shape[-1], shape[-2]) if transposed else shape[-2:]
        rank = payload["up"].shape[-1] if payload["up"].ndim else 0
        up = fits("up", payload["up"], (*shape[:-2], out, rank), *_DTYPES)
        return LowRank(up, fits("down", payload["down"], (*shape[:-2], rank, inputs), *_DTYPES), transposed)


def _truncated(matrix: Tensor, energy: float, highest: int) -> tuple[Tensor, Tensor]:
    """U √Σ [out, r] and √Σ V [r, in] of the smallest rank r that has the share `energy` of Σ σ².

    Halves of Σ make both factors as large, so that both may be rounded alike.

    Args:
        highest: r at most, whatever its share; 0: as it comes.
    """
    left, values, right = svd(matrix)
    shares = values.square().cumsum(0)
    rank = int((shares < energy * shares[-1:]).count_nonzero()) + 1
    kept = slice(min(rank, highest or rank))
    roots = values[kept].sqrt()
    return left[:, kept] * roots, roots[:, None] * right[kept]


lowrank: Codec = _LowRank()
