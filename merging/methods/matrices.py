"""What spectral methods share: which tensors they treat as matrices, and what happens to the rest.

A matrix is decomposed, and so is each of a stack. Everything else — embeddings, heads, biases, norms, kernels of
convolutions — gets λ times the weighted mean of the deltas, Σ w_t τ_t / T, as the methods' own code does it. So do
deltas with NaN or infinity, which cannot be decomposed: they reach the result.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from merging.methods.contract import Parameters, TensorContext


class Decomposed(NamedTuple):
    """The prepared state of a tensor of matrices.

    Attributes:
        parts: what `decompose` gave for the matrix, or for each of the stack.
        transposed: whether they are stored [in, out].
        stacked: whether there is a stack.
    """

    parts: tuple[Any, ...]
    transposed: bool
    stacked: bool


class MatrixMethod(ABC):
    """A DeltaMethod written for one matrix [out, in]: finds the matrices in a tensor and turns them upright."""

    @abstractmethod
    def decompose(self, deltas: Tensor, parameters: Parameters) -> Any:
        """What `join` needs, as tensors or tuples of them, from deltas [T, out, in], finite."""

    @abstractmethod
    def join(self, deltas: Tensor, part: Any, weights: Tensor, parameters: Parameters) -> Tensor:
        """The update of one matrix, float32 [out, in], from what `decompose` gave; λ is not part of it."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> Decomposed | None:
        """Every matrix decomposed; None for a tensor that takes the mean."""
        stacked = context.role == "stack"
        if not (stacked or context.role == "matrix") or not torch.isfinite(deltas).all():
            return None
        matrices = _matrices(deltas, context.transposed, stacked)
        return Decomposed(tuple(self.decompose(m, parameters) for m in matrices), context.transposed, stacked)

    def combine(self, deltas: Tensor, prepared: Decomposed | None, weights: Tensor, parameters: Parameters) -> Tensor:
        """The update [*shape]."""
        if prepared is None:
            return _weighted_mean(deltas, weights).mul_(parameters["lambda"])
        matrices = _matrices(deltas, prepared.transposed, prepared.stacked)
        joined = zip(matrices, prepared.parts, strict=True)
        updates = [self.join(matrix, part, weights, parameters).mul_(parameters["lambda"]) for matrix, part in joined]
        if prepared.transposed:
            updates = [update.mT for update in updates]
        return torch.stack(updates) if prepared.stacked else updates[0].contiguous()


def _matrices(deltas: Tensor, transposed: bool, stacked: bool) -> tuple[Tensor, ...]:
    """Views [T, out, in] of deltas [T, a, b], or of each slice of deltas [T, E, a, b]."""
    upright = deltas.mT if transposed else deltas
    return upright.unbind(1) if stacked else (upright,)


def _weighted_mean(deltas: Tensor, weights: Tensor) -> Tensor:
    """Σ w_t τ_t / T in the order of the experts: a NaN survives a weight of 0, as it need not in a product."""
    total = torch.zeros_like(deltas[0])
    for delta, weight in zip(deltas, weights.tolist(), strict=True):
        total.add_(delta, alpha=weight / len(deltas))
    return total
