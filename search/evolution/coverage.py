"""A set of recipes that complement each other: what is solved if each document goes to the one that does it best."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.result import TaskScore
from search.evolution.skill import read_skill
from search.evolution.table import Floats, tabulate


@dataclass(frozen=True)
class Chosen:
    """A complementary set.

    Attributes:
        places: of the chosen among those given, in the order they were chosen.
        coverage: after each choice, the weighted share of the documents that the chosen solve together, 0 to 1.
    """

    places: tuple[int, ...]
    coverage: tuple[float, ...]


def complementary(recipes: Sequence[Sequence[TaskScore]], weights: Mapping[str, float], size: int) -> Chosen:
    """The set, chosen greedily: each adds the most to those before it; of equals the first given.

    Greedy choice covers at least 1 - 1/e, 63 %, of what the best set of that size does (coverage is submodular). It
    ends early where nobody adds anything. What a recipe was not scored on is estimated (`search.evolution.table`).

    Args:
        recipes: scores of each, on the same tasks.
        weights: of the tasks; those of weight 0 are left out.
        size: most recipes of the set.
    """
    if not recipes:
        return Chosen((), ())
    table = tabulate([read_skill(scores, weights) for scores in recipes], weights)
    together: Floats = np.zeros(len(table.weights))
    places: list[int] = []
    coverage: list[float] = []
    while len(places) < size:
        reached = np.maximum(table.scores, together) @ table.weights
        best = int(reached.argmax())
        if coverage and reached[best] <= coverage[-1]:
            break
        places.append(best)
        coverage.append(float(reached[best]))
        together = np.maximum(together, table.scores[best])
    return Chosen(tuple(places), tuple(coverage))
