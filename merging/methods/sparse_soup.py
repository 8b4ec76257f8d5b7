"""Sparse model soup (arXiv:2306.16788): the average of pruned experts, as sparse as they are."""

import torch
from torch import Tensor

from merging.errors import InvalidRecipe
from merging.methods.contract import DeltaMethod, Parameters, TensorContext


class _SparseSoup:
    """m ⊙ Σ w_t X_t / Σ w_t, m where the experts are not 0.

    Prepared: uint8 [*shape], 0 where the mean is taken, else 1 + an expert whose element is 0; its delta, −θ_0, is the
    update that leaves exactly 0. What float32 cannot tell from 0 beside the base's element counts as 0.
    """

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> Tensor:
        zero = -context.statistics.base().float()
        everywhere = first = deltas[0] == zero
        donor = first.to(torch.uint8)
        for place, delta in enumerate(deltas[1:], start=2):
            pattern = delta == zero
            if parameters["mask"] == "shared":
                _check_shared(first, pattern, context)
            everywhere = everywhere & pattern
            donor.masked_fill_(pattern & (donor == 0), place)
        return donor if parameters["mask"] == "intersection" else donor.mul_(everywhere)

    def combine(self, deltas: Tensor, prepared: Tensor, weights: Tensor, parameters: Parameters) -> Tensor:
        numbers = weights.tolist()
        update = torch.zeros_like(deltas[0])
        for delta, weight in zip(deltas, numbers, strict=True):
            update.add_(delta, alpha=weight)
        update.div_(sum(numbers))
        for place, delta in enumerate(deltas, start=1):
            # 0 · u is 0, or NaN where another expert is not finite
            update = torch.where(prepared == place, torch.add(delta, update, alpha=0.0), update)
        return update


def _check_shared(first: Tensor, other: Tensor, context: TensorContext) -> None:
    """Two experts are 0 in the same places, bool [*shape].

    Raises:
        InvalidRecipe: they are not.
    """
    count = int(torch.count_nonzero(first ^ other))
    if count:
        problem = f"needs experts pruned alike, but {count} elements of {context.name} are 0 in only one of two"
        remedy = "leave out the expert pruned otherwise, or set mask to intersection (sparser) or union (denser)"
        raise InvalidRecipe("parameters.mask", "shared", problem, remedy)


sparse_soup: DeltaMethod = _SparseSoup()
