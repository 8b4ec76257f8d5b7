"""The gate before scoring: a short look at each new candidate, against the base and the experts, each alone."""

import logging
from collections.abc import Callable

from evaluation.gates.look import Look
from evaluation.gates.verdict import broken
from evaluation.wanted import Wanted
from merging.recipe import GroupMerge, Recipe
from workers.benches import Impossible

_PLAIN = ("linear", "task_arithmetic")  # methods whose one-hot and equal weights are the baselines
_ALIKE = 1e-5  # shares are written with six digits
_log = logging.getLogger(__name__)


class Gate:
    """The gate of one study in one worker. What the parents look like is found before its first candidate.

    Args:
        layers: how many the models have.
        build: makes a recipe's candidate the one that is looked at.
        look: looks at it; told what to call before every forward pass.
    """

    def __init__(
        self, layers: int, build: Callable[[Recipe], None], look: Callable[[Callable[[], None]], Look]
    ) -> None:
        self._layers, self._build, self._look = layers, build, look
        self._parents: tuple[Look, ...] = ()

    def prepare(self, recipe: Recipe, beat: Callable[[], None]) -> None:
        """See that the parents' looks are known; where they are not, the parents are built, one after the other."""
        if not self._parents:
            self._parents = tuple(self._of(parent, beat) for parent in parents_of(recipe, self._layers))
            _log.info("looked at base and experts", extra={"action": "gate.prepared"})

    def require(self, recipe: Recipe, wanted: Wanted, beat: Callable[[], None]) -> None:
        """Look at the candidate that was built, if it was never scored before and is no baseline.

        Raises:
            Impossible: it is broken; the message has the figures.
        """
        if wanted.part != "search" or wanted.reused or is_plain(recipe):
            return
        why = broken(self._look(beat), self._parents)
        if why is not None:
            raise Impossible(why)

    def _of(self, recipe: Recipe, beat: Callable[[], None]) -> Look:
        self._build(recipe)
        return self._look(beat)


def parents_of(recipe: Recipe, layers: int) -> list[Recipe]:
    """The base, and each expert alone, in the form in which a recipe takes its experts.

    Args:
        layers: how many the models have.
    """
    names = tuple(recipe.experts)
    weights = [dict.fromkeys(names, 0.0), *({name: float(name == one) for name in names} for one in names)]
    silent = {"suite": "", "slices": (), "overrides": ()}
    return [recipe.model_copy(update={**silent, "groups": (_plain(layers, each),)}) for each in weights]


def is_plain(recipe: Recipe) -> bool:
    """Whether it is a baseline: the base, an expert alone, or the plain average of all."""
    first = recipe.groups[0].weights
    alike = all(group.method in _PLAIN and group.weights == first for group in recipe.groups)
    if recipe.overrides or recipe.slices or not alike:
        return False
    weights, share = sorted(first.values()), 1.0 / len(recipe.experts)
    alone = weights[-1:] == [1.0] and not any(weights[:-1])
    return alone or not any(weights) or all(abs(weight - share) < _ALIKE for weight in weights)


def _plain(layers: int, weights: dict[str, float]) -> GroupMerge:
    return GroupMerge(method="task_arithmetic", layers=(0, layers), weights=weights)
