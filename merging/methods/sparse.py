"""Methods that keep a part of every delta, chosen by size or by chance: which elements, as programs of the kernel.

A share of elements is the count max(1, ⌊share · n⌋) of n, so that no tensor, row or model is emptied. Every number of
the catalog marked `per_expert` may be one number or one for each expert.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from merging.kernel import draw_key
from merging.kernel.program import Chance, Join, Keep, Program
from merging.methods.contract import ElementwiseMethod, Parameters, TensorContext

Select = Callable[[int, float, Parameters, TensorContext], Keep]


class _Selecting:
    """λ · join of the selected elements; `select` gives one expert's."""

    def __init__(self, select: Select, *, elects: bool, mean: bool | None = None) -> None:
        self._select, self._elects, self._mean = select, elects, mean

    def program(self, weights: Sequence[float], parameters: Parameters, context: TensorContext) -> Program:
        keeps, common = _common_divisor(
            [self._select(i, weight, _of_expert(parameters, i), context) for i, weight in enumerate(weights)]
        )
        scale = float(parameters.get("lambda", 1.0)) / common
        if self._mean:  # over those that kept the element
            return Program(keeps, "mean", scale)
        mean = bool(parameters.get("normalize", False))
        if self._elects:
            join: Join = "elected_mean" if mean else "elected_sum"
            return Program(keeps, join, scale)
        return Program(keeps, "sum", scale, _sum_or_one(weights) if mean else 1.0)


def _largest(expert: int, weight: float, values: Parameters, context: TensorContext) -> Keep:
    """The share `density` of largest magnitudes."""
    scope = values["scope"]
    size = context.statistics.population(scope)
    kept = kept_count(values["density"], size)
    return Keep(weight) if kept >= size else Keep(weight, above=context.statistics.cut(expert, kept, scope))


def _band(expert: int, weight: float, values: Parameters, context: TensorContext) -> Keep:
    """The share `density` right below the share `gamma` of largest; gamma yields where the two exceed 1."""
    statistics, scope = context.statistics, values["scope"]
    size = statistics.population(scope)
    kept = kept_count(values["density"], size)
    dropped = min(int(values["gamma"] * size), size - kept)
    above = statistics.cut(expert, dropped + kept, scope) if dropped + kept < size else None
    below = statistics.cut(expert, dropped, scope) if dropped else None
    return Keep(weight, above, below)


def _drawn(expert: int, weight: float, values: Parameters, context: TensorContext) -> Keep:
    """Each element with probability `density`, divided by it: Bernoulli(p) ⊙ τ / p, whose expectation is τ."""
    density = values["density"]
    chance = Chance(_key(expert, context), density, density, rescale=values["rescale"] == "inverse")
    return _rescaled(expert, Keep(weight, chance=chance), values, context) if density < 1.0 else Keep(weight)


def _drawn_by_rank(expert: int, weight: float, values: Parameters, context: TensorContext) -> Keep:
    """Each element with probability density ± ε by its rank, divided by it."""
    density, statistics, scope = values["density"], context.statistics, values["scope"]
    epsilon = values["epsilon"] * min(density, 1.0 - density)
    if density >= 1.0:
        return Keep(weight)
    ranks = statistics.ranks(expert, scope) if epsilon > 0.0 else None
    inverse = values["rescale"] == "inverse"
    low, high = density - epsilon, density + epsilon
    if inverse:  # ε may take p down to 0, and nothing is divided by that: half a rank's step, and draws have 24 bits
        low = max(low, epsilon / max(1, statistics.population(scope)), 2.0**-24)
    chance = Chance(_key(expert, context), low, high, ranks, statistics.population(scope), inverse)
    return _rescaled(expert, Keep(weight, chance=chance), values, context)


def _rescaled(expert: int, keep: Keep, values: Parameters, context: TensorContext) -> Keep:
    """The same selection, brought back to the delta's L1 norm if that is asked for."""
    if values["rescale"] != "l1":
        return keep
    return Keep(keep.weight, chance=keep.chance, factor=context.statistics.l1_factor(expert, keep))


def _common_divisor(keeps: list[Keep]) -> tuple[tuple[Keep, ...], float]:
    """The same selections, with the probability that all divide by taken out of them.

    Numbers that are divided one by one are rounded one by one, and a vote that is tied would not stay so.
    """
    chances = [keep.chance for keep in keeps]
    first = chances[0]
    if first is None or any(c is None or not c.rescale or c.ranks is not None or c.low != first.low for c in chances):
        return tuple(keeps), 1.0
    undivided = [replace(keep, chance=replace(keep.chance, rescale=False)) for keep in keeps if keep.chance]
    return tuple(undivided), first.low


def _key(expert: int, context: TensorContext) -> int:
    return draw_key(context.seed, context.name, context.experts[expert])


def _of_expert(parameters: Parameters, index: int) -> dict[str, Any]:
    """One expert's parameters: its own number where each has one."""
    return {name: value[index] if isinstance(value, tuple) else value for name, value in parameters.items()}


def _sum_or_one(weights: Sequence[float]) -> float:
    """Σ w_t, 1 where it vanishes."""
    total = math.fsum(weights)
    return total if abs(total) >= 1e-8 else 1.0


def kept_count(share: float, size: int) -> int:
    """How many of `size` elements a share keeps: max(1, ⌊share·size⌋), so that nothing is emptied."""
    return min(size, max(1, int(share * size)))


ties: ElementwiseMethod = _Selecting(_largest, elects=True)
dare: ElementwiseMethod = _Selecting(_drawn, elects=False)
dare_ties: ElementwiseMethod = _Selecting(_drawn, elects=True)
della: ElementwiseMethod = _Selecting(_drawn_by_rank, elects=True)
della_linear: ElementwiseMethod = _Selecting(_drawn_by_rank, elects=False)
breadcrumbs: ElementwiseMethod = _Selecting(_band, elects=False)
breadcrumbs_ties: ElementwiseMethod = _Selecting(_band, elects=True)
localize_stitch: ElementwiseMethod = _Selecting(_largest, elects=False, mean=True)
composable_sft: ElementwiseMethod = _Selecting(_largest, elects=False)
