"""Measures a `Profile`: one pass over base and experts."""

import torch

from merging.models import ModelSet
from merging.profile import Profile
from merging.statistics import gram_matrix


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
