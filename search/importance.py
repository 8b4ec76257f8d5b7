"""Which layers the experts changed most, from what is known of the models' weights before anything is tried.

A layer's importance is the size of the experts' deltas there against that of the base's weights,
`sqrt(sum over experts |delta|^2 / |base|^2)`, smoothed over neighbours by a quarter, a half and a quarter. It is the
weight part of the layer prior of AP-BMM (`docs/study.md`); the part that compares activations needs documents and
is not computed here.
"""

import math
from collections.abc import Sequence

from merging.profile import Profile


def layer_importance(profile: Profile) -> tuple[float, ...]:
    """[layers] importance of each layer, 0 or more; a layer without weights has none."""
    return smoothed([_ratio(inner, base) for inner, base in zip(profile.inner, profile.base, strict=True)])


def depth_importance(profile: Profile, depths: Sequence[float]) -> tuple[float, ...]:
    """[depths] the mean importance of the layers that lie nearest to each place; of a place without any, 0.

    Args:
        depths: places along the layers, 0 to 1, as `Dimension.depth` has them.
    """
    layers = layer_importance(profile)
    near: list[list[float]] = [[] for _ in depths]
    for index, importance in enumerate(layers):
        middle = (index + 0.5) / len(layers)
        near[min(range(len(depths)), key=lambda i: (abs(depths[i] - middle), i))].append(importance)
    return tuple(sum(found) / len(found) if found else 0.0 for found in near)


def most_important(profile: Profile, depths: Sequence[float], count: int) -> frozenset[float]:
    """The so many most important places; of equals the shallower."""
    importance = depth_importance(profile, depths)
    order = sorted(range(len(depths)), key=lambda i: (-importance[i], depths[i]))
    return frozenset(depths[i] for i in order[:count])


def smoothed(values: Sequence[float]) -> tuple[float, ...]:
    """Half of each value and a quarter of each neighbour; at the ends a value is its own neighbour."""
    last = len(values) - 1
    return tuple(
        0.25 * values[max(i - 1, 0)] + 0.5 * value + 0.25 * values[min(i + 1, last)] for i, value in enumerate(values)
    )


def _ratio(inner: Sequence[Sequence[float]], base: float) -> float:
    """Size of the deltas against the base's; inner products measured in low precision may fall below 0."""
    moved = sum(max(inner[i][i], 0.0) for i in range(len(inner)))
    return math.sqrt(moved / base) if base > 0 else 0.0
