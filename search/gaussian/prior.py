"""How far one must go along each coordinate before the value changes: a guess from the models' weights.

The layers that the experts changed most, relative to the base, matter most and need the shortest length scales; the
shares of layers and the lengths are those of AP-BMM's code (arXiv:2512.09972). They are multiplied by the root of the
number of dimensions, as distances are (Hvarfner, Hellsten and Nardi, "Vanilla Bayesian Optimization Performs Great in
High Dimensions", arXiv:2402.02229), times a constant that was measured: between 1/4 and 1/7 bowls of 16 and 40
dimensions were searched best, and at 1 as slowly as by chance.
"""

import math
from collections.abc import Sequence

import numpy as np

from merging.profile import Profile
from search.gaussian.kernel import Floats
from search.importance import layer_importance
from search.space import Dimension, Space

LENGTHS = ((0.15, 0.5), (0.40, 1.0), (0.70, 2.0), (1.0, 5.0))  # up to which share of the layers, which length
ROOT_SHARE = 0.2
PLAIN = 1.0  # where nothing is known of a layer


def scales(space: Space, dimensions: Sequence[Dimension], size: int, profile: Profile | None) -> Floats:
    """The length scale of each dimension, in units of its range: [dimensions].

    Args:
        size: how many dimensions a point has.
    """
    return np.asarray(ROOT_SHARE * size**0.5 * lengths(space, dimensions, profile))


def lengths(space: Space, dimensions: Sequence[Dimension], profile: Profile | None) -> Floats:
    """The length of each dimension relative to others: [dimensions]. Of several layers it is the geometric mean."""
    asked = sorted({space.layer_of(d) for d in dimensions if d.depth is not None})
    if profile is None or not asked:
        return np.full(len(dimensions), PLAIN)
    stands: dict[int, list[float]] = {layer: [] for layer in asked}
    for layer, length in enumerate(by_layer(profile)):  # each layer belongs to the nearest that is asked for
        stands[min(asked, key=lambda known: (abs(known - layer), known))].append(math.log(length))
    means = {layer: math.exp(sum(logs) / len(logs)) if logs else PLAIN for layer, logs in stands.items()}
    return np.array([PLAIN if d.depth is None else means[space.layer_of(d)] for d in dimensions])


def by_layer(profile: Profile) -> tuple[float, ...]:
    """[layers] the length of each layer, by the rank of its importance; `PLAIN` where all are as important."""
    importance = layer_importance(profile)
    if math.isclose(min(importance), max(importance), rel_tol=1e-6):
        return (PLAIN,) * len(importance)
    order = sorted(range(len(importance)), key=lambda layer: (-importance[layer], layer))
    share = {layer: (rank + 0.5) / len(order) for rank, layer in enumerate(order)}
    return tuple(next(length for most, length in LENGTHS if share[layer] <= most) for layer in range(len(order)))
