"""CABS (arXiv:2503.01874): the experts prune one after another, each in what those before it left, block by block.

A block is m consecutive elements of the flattened tensor; the last may be shorter. In every block each expert keeps
its share of elements: the largest of those nobody has taken, and only if they are too few the largest of the others.
The ranks within the blocks depend on neither order nor share, so both may change without a new preparation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from merging.methods.contract import DeltaMethod, Parameters, TensorContext
from merging.methods.sparse import kept_count

_BLOCKS = 1 << 12  # whose int64 indices are held at a time


@dataclass(frozen=True)
class _Ranks:
    """The blocks of one tensor.

    Attributes:
        ranks: uint8 or int16 [T, blocks, m], descending by magnitude from 0; what fills up the last block ranks last.
        precedence: each expert's place in the order of the fingerprints.
    """

    ranks: Tensor
    precedence: tuple[int, ...]


class _Cabs:
    """λ Σ w_t m_t ⊙ τ_t, m_t the expert's share of every block."""

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> _Ranks:
        width = parameters["m"]
        blocks = -(-deltas[0].numel() // width)
        kind = torch.uint8 if width <= 256 else torch.int16
        ranks = torch.empty((len(deltas), blocks, width), dtype=kind, device=deltas.device)
        for row, delta in zip(ranks, deltas, strict=True):
            magnitudes = pad(delta.abs().flatten(), (0, blocks * width - delta.numel()), value=-1.0)
            for part, values in zip(_parts(row), _parts(magnitudes.view(blocks, width)), strict=True):
                order = values.sort(dim=1, descending=True, stable=True).indices
                part.scatter_(1, order, torch.arange(width, device=row.device).to(kind).expand_as(part))
        by_fingerprint = sorted(range(len(deltas)), key=lambda t: context.experts[t])
        return _Ranks(ranks, tuple(by_fingerprint.index(t) for t in range(len(deltas))))

    def combine(self, deltas: Tensor, prepared: _Ranks, weights: Tensor, parameters: Parameters) -> Tensor:
        blocks, width = prepared.ranks.shape[1:]
        size, numbers = deltas[0].numel(), weights.tolist()
        quota = torch.full((blocks, 1), kept_count(parameters["density"], width), device=deltas.device)
        quota[size // width :] = kept_count(parameters["density"], size % width or width)
        taken = torch.zeros((blocks, width), dtype=torch.bool, device=deltas.device)
        taken.view(-1)[size:] = True  # the filling
        update = torch.zeros_like(deltas[0]).view(-1)
        for t in _order(numbers, prepared.precedence, parameters["order"]):
            mask = _kept(prepared.ranks[t], taken, quota)
            update.add_((deltas[t].reshape(-1) * mask.view(-1)[:size]).mul_(numbers[t]))
            taken.logical_or_(mask)
        return update.mul_(parameters["lambda"]).view_as(deltas[0])


def _order(weights: Sequence[float], precedence: Sequence[int], order: str) -> list[int]:
    """The experts that take part, first the one that chooses first; of equal weights by fingerprint."""
    sign = 1.0 if order == "lightest" else -1.0
    taking_part = (t for t, weight in enumerate(weights) if weight != 0.0)
    return sorted(taking_part, key=lambda t: (sign * weights[t], precedence[t]))


def _kept(ranks: Tensor, taken: Tensor, quota: Tensor) -> Tensor:
    """bool [blocks, m]: the `quota` [blocks, 1] first elements of each block, all free ones before the taken ones."""
    mask = torch.empty_like(taken)
    for out, rank, used, count in zip(*map(_parts, (mask, ranks, taken, quota)), strict=True):
        index, free = rank.long(), used.logical_not()
        ordered = torch.zeros_like(free).scatter_(1, index, free)  # whether free, by rank
        counted = ordered.cumsum(1, dtype=torch.int32)
        upto = counted.gather(1, index)  # free ones up to this rank
        position = torch.where(free, upto - 1, counted[:, -1:] + rank - upto)
        torch.lt(position, count, out=out)
    return mask


def _parts(blocks: Tensor) -> tuple[Tensor, ...]:
    """A tensor [blocks, …] in runs of blocks; the runs of two tensors of one method match."""
    return torch.split(blocks, _BLOCKS)


cabs: DeltaMethod = _Cabs()
