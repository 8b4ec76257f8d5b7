"""RegMean: the matrix whose outputs lie nearest to every expert's, on the inputs each of them sees.

W = (Σ w_t W_t G_t) (Σ w_t G_t)⁻¹, G_t = E[x xᵀ] over an expert's own inputs (arXiv:2212.09849, equation 2); RegMean++
takes the inputs that come out of the merged layers before (arXiv:2508.03121). Everything is done on deltas: the answer
moves with the base, and small updates keep their digits.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from merging.catalog.declare import ArtefactKind
from merging.methods.contract import DeltaMethod, Parameters, TensorContext


class Block(NamedTuple):
    """One run of a matrix' input channels, whose products with the others were measured.

    Attributes:
        first: where the run begins.
        grams: G_t of each expert, float32 [b, b]; or [b], where the diagonal alone was kept.
        products: τ_t G_t of each expert, float32 [T, out, b].
    """

    first: int
    grams: tuple[Tensor, ...]
    products: Tensor


class Prepared(NamedTuple):
    """The blocks of one matrix, and whether it is stored [in, out]."""

    blocks: tuple[Block, ...]
    transposed: bool


class _RegMean:
    """Solves for one matrix at a time, block by block; what has no measured inputs takes the weighted mean."""

    def __init__(self, kind: ArtefactKind) -> None:
        self._kind = kind

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> Prepared | None:
        """What does not depend on weights; None for a tensor that takes the mean."""
        if context.role != "matrix" or not torch.isfinite(deltas).all():
            return None
        upright = deltas.mT if context.transposed else deltas
        blocks: list[Block] = []
        first = 0
        while first < upright.shape[2]:
            grams = [context.measured.tensor(self._kind, t, f"gram.{len(blocks)}") for t in range(len(deltas))]
            found = tuple(each.to(deltas.device) for each in grams if each is not None)
            if len(found) < len(deltas):
                return None
            columns = upright[:, :, first : first + len(found[0])]
            products = torch.stack([_times(own, gram) for own, gram in zip(columns, found, strict=True)])
            blocks.append(Block(first, found, products))
            first += len(found[0])
        return Prepared(tuple(blocks), context.transposed)

    def combine(self, deltas: Tensor, prepared: Prepared | None, weights: Tensor, parameters: Parameters) -> Tensor:
        """The update [*shape]."""
        shares = (weights.double() / weights.double().sum()).tolist()
        mean = torch.zeros_like(deltas[0])
        for delta, share in zip(deltas, shares, strict=True):
            mean.add_(delta, alpha=share)
        if prepared is None:
            return mean.mul_(parameters["lambda"])
        upright = deltas.mT if prepared.transposed else deltas
        anchor = mean.mT if prepared.transposed else mean
        for block in prepared.blocks:
            columns = slice(block.first, block.first + len(block.grams[0]))
            anchor[:, columns] += _solved(upright[:, :, columns], block, anchor[:, columns], shares, parameters)
        return mean.mul_(parameters["lambda"])


def _solved(deltas: Tensor, block: Block, anchor: Tensor, shares: list[float], parameters: Parameters) -> Tensor:
    """X with X (Σ w_t G_t + r I) = Σ w_t (τ_t − anchor) G_t, float32 [out, b]; r is a share of the mean input.

    G_t = α G_t + (1 − α) diag G_t first: fewer texts than channels say little about how channels go together.
    """
    alpha = parameters["alpha"] if block.grams[0].dim() == 2 else 0.0
    size = len(block.grams[0])
    off = torch.zeros((size, size) if alpha else (size,), dtype=torch.float64, device=deltas.device)
    diagonal = torch.zeros(size, dtype=torch.float64, device=deltas.device)
    moment = torch.zeros(anchor.shape, dtype=torch.float64, device=deltas.device)
    for delta, gram, product, share in zip(deltas, block.grams, block.products, shares, strict=True):
        own = (gram.diagonal() if gram.dim() == 2 else gram).double()
        diagonal += share * own
        moment += (share * (1.0 - alpha)) * (delta.double() * own)
        if alpha:
            off.add_(gram.double(), alpha=share * alpha)
            moment += (share * alpha) * product.double()
    ridge = parameters["ridge"] * diagonal.mean()
    if float(diagonal.mean()) == 0.0:  # inputs that are always 0 ask for nothing
        return torch.zeros_like(anchor)
    if not alpha:
        apart: Tensor = (moment - anchor.double() * diagonal) / (diagonal + ridge)
        return apart.float()
    off.diagonal().add_((1.0 - alpha) * diagonal)
    moment -= anchor.double() @ off
    off.diagonal().add_(ridge)
    solution: Tensor = torch.cholesky_solve(moment.mT, torch.linalg.cholesky(off))
    return solution.mT.float()


def _times(delta: Tensor, gram: Tensor) -> Tensor:
    """τ G, float32 [out, b]."""
    return (delta.double() @ gram.double()).float() if gram.dim() == 2 else delta * gram


regmean: DeltaMethod = _RegMean("inputs")
regmean_pp: DeltaMethod = _RegMean("propagated inputs")
