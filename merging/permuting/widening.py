"""Partial merging of MLPs: units that match well become one, the others stay apart in a wider MLP.

The partial matching of PLeaS (arXiv:2407.02447) and ZipIt (arXiv:2305.03053), of hidden units of gated MLPs alone. The
width follows from the ratio, so that one ratio gives all layers the `intermediate_size` that a config can name.
Does not write checkpoints.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Mlp(NamedTuple):
    """The weights of down(act(gate x) ⊙ (up x)).

    Attributes:
        gate, up: [units, width]. Biases of theirs may be a further column.
        down: [width, units]. A bias of its own is no part of this: Σ w_t b_t serves at any ratio.
    """

    gate: Tensor
    up: Tensor
    down: Tensor


def agreement(models: Sequence[Mlp]) -> Tensor:
    """How alike the units in each place are, float64 [units]: the least cosine of the first model's with another's."""
    units = [torch.cat([each.gate, each.up, each.down.mT], 1).double() for each in models]
    cosines = [torch.nn.functional.cosine_similarity(units[0], other, dim=1) for other in units[1:]]
    return torch.stack(cosines).amin(0) if cosines else torch.ones(len(units[0]), dtype=torch.float64)


def separate_count(units: int, ratio: float) -> int:
    """How many units stay separate: the same for every layer of that size.

    Raises:
        ValueError: the ratio does not lie in [0, 1].
    """
    if not 0 <= ratio <= 1:
        raise ValueError(f"ratio {ratio} does not lie between 0 and 1")
    return round(ratio * units)


def widened(models: Sequence[Mlp], w: Sequence[float], similarity: Tensor, ratio: float) -> Mlp:
    """The merged MLP, in which the least similar units stay separate.

    A unit that stays separate keeps its gate and up in each model and has its part in the output weighed by w_t. At
    ratio 1 the result computes Σ w_t f_t exactly; at 0 its weights are Σ w_t W_t.

    Args:
        models: T MLPs of one shape, their units in one order.
        w: one weight a model.
        similarity: [units], how well the units in each place match; the lowest are kept apart, of equals the first.
        ratio: the share of units that stay separate, in [0, 1].

    Returns:
        Of units + (T − 1) · `separate_count` units, in the models' dtype: first those in the models' places, where
        the separate ones are the first model's; then the separate ones of every other model.

    Raises:
        ValueError: the ratio does not lie in [0, 1].
    """
    count = separate_count(len(similarity), ratio)
    apart = similarity.argsort(stable=True)[:count].sort().values
    merged = [_mean([each[i] for each in models], w) for i in range(3)]
    gate, up, down = ([part] for part in merged)
    first = models[0]
    gate[0][apart], up[0][apart] = first.gate[apart], first.up[apart]
    down[0][:, apart] = (first.down[:, apart].double() * w[0]).to(first.down.dtype)
    for model, weight in zip(models[1:], w[1:], strict=True):
        gate.append(model.gate[apart])
        up.append(model.up[apart])
        down.append((model.down[:, apart].double() * weight).to(model.down.dtype))
    return Mlp(torch.cat(gate), torch.cat(up), torch.cat(down, 1))


def _mean(tensors: Sequence[Tensor], w: Sequence[float]) -> Tensor:
    """Σ w_t X_t, computed in float64 in the order given."""
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor, weight in zip(tensors, w, strict=True):
        total += weight * tensor.double()
    return total.to(tensors[0].dtype)
