"""DoRA: a low-rank change of the directions of a matrix' rows, whose norms are learned apart (arXiv:2402.09353)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.codecs.contract import Numbers


@dataclass(frozen=True, eq=False)
class Dora:
    """m ⊙ (θ_0 + up · down) / ‖θ_0 + up · down‖, row by row of the matrix [out, in] (equation 5), as peft merges it.

    Attributes:
        up: [out, rank].
        down: [rank, in]; the scale of the LoRA is part of one of the two.
        magnitude: [out], the norms of the rows.
        transposed: whether the tensor is stored [in, out].
    """

    up: Tensor
    down: Tensor
    magnitude: Tensor
    transposed: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the expert's tensor."""
        out, inputs = self.up.shape[0], self.down.shape[1]
        return (inputs, out) if self.transposed else (out, inputs)

    @property
    def payload(self) -> Mapping[str, Tensor]:
        """The two factors and the norms."""
        return {"up": self.up, "down": self.down, "magnitude": self.magnitude}

    @property
    def numbers(self) -> Numbers:
        """Which way the tensor lies."""
        return {"transposed": int(self.transposed)}

    def expert(self, base: Tensor) -> Tensor:
        """The expert's tensor, float32; a row of zeros has no direction and stays zero, whatever its norm."""
        upright = base.to(torch.float32).mT if self.transposed else base.to(torch.float32)
        moved = (self.up.float() @ self.down.float()).add_(upright)
        norms = torch.linalg.vector_norm(moved, dim=1)
        factor = torch.where(norms > 0.0, self.magnitude.float() / norms, 0.0)
        rows = moved.mul_(factor[:, None])
        return rows.mT.contiguous() if self.transposed else rows

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Dora":
        """The same with its payload elsewhere."""
        return Dora(move(self.up), move(self.down), move(self.magnitude), self.transposed)
