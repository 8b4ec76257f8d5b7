"""Measures a `Profile`: one pass over base and experts."""

import torch

from merging.models import ModelSet
from merging.profile import Profile
from merging.roles import role, transposed
from merging.statistics import gram_matrix

_BLOCK = 4096  # inputs of a matrix between which products are kept; the catalog's default of `block`


def profile(models: ModelSet) -> Profile:
    """The profile of these models; sums in float64."""
    layout, size = models.layout, len(models.names) + 1
    total = torch.zeros((layout.layer_count, size, size), dtype=torch.float64)
    for name, place in layout.places.items():
        stack = models.stack(name)
        if stack.base.is_floating_point():
            layer = {"before": 0, "after": layout.layer_count - 1}.get(str(place.layer), place.layer)
            total[int(layer)] += gram_matrix(stack)
    inner = tuple(tuple(tuple(row) for row in layer) for layer in total[:, 1:, 1:].tolist())
    return Profile(inner=inner, base=tuple(total[:, 0, 0].tolist()))


def sums_bytes(models: ModelSet) -> int:
    """Bytes of the sums that methods keep which fit every matrix to what reaches it (`pleas_pp`): float32, two products
    of inputs for each matrix and expert.
    """
    total, config = 0, models.base.config
    for name in models.base.names:
        shape = models.shape(name)
        if role(name, shape, config) == "matrix":
            inputs = shape[0 if transposed(name, config) else 1]
            total += inputs * min(inputs, _BLOCK)
    return 2 * 4 * len(models.names) * total
