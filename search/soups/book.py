"""What is known of soups: how each that was told was judged, and which are open.

Everything in it was told; after a restart it is told again. The scores of single documents are read when a test needs
them, and not kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluation.result import TaskScore
from merging.recipe import Recipe
from search.soups.counts import Counts, reduced, shares
from search.space import Space
from search.starts.start import expert_origin
from search.strategies.contract import Observation

Shares = tuple[float, ...]
"""The weight of each expert, in the study's order."""

_NORMAL = {"normalize": True}  # the one parameter of an average, as it is where it is not written
_DIGITS = 9  # of a weight: 1/3 is one number however it was found


@dataclass(frozen=True)
class Entry:
    """One soup that was told.

    Attributes:
        value: the objective; None: it could not be scored.
        violation: how far it is beyond the study's constraints; 0: it meets them.
        scores: reads its scores, document by document; None where it has none.
    """

    value: float | None
    violation: float = 0.0
    scores: Callable[[], tuple[TaskScore, ...]] | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """Larger is better: whoever meets the constraints comes before any that does not; last who has no value."""
        return (float("-inf"), 0.0) if self.value is None else (-self.violation, self.value)

    @property
    def said(self) -> str:
        """The value, for people."""
        return "could not be scored" if self.value is None else f"{self.value:.4f}"


class Book:
    """The soups of one study's experts."""

    def __init__(self, space: Space) -> None:
        self.names = tuple(space.experts)
        self._space = space
        self._awaited = {expert_origin(name) for name in self.names}
        self._single: dict[str, Entry] = {}  # by name
        self._entries: dict[Shares, Entry] = {}
        self._open: set[Shares] = set()
        self._keys: dict[Counts, Shares] = {}

    @property
    def begun(self) -> bool:
        """Whether every expert alone was told."""
        return not self._awaited

    @property
    def packed(self) -> bool:
        """Whether soups are of experts that are kept compressed, so that an expert's own trial is none of them."""
        return self._space.compress is not None

    def recipe(self, soup: Counts) -> Recipe:
        """The recipe of a soup."""
        return self._space.uniform("linear", shares(soup, self.names), {})

    def is_open(self, soup: Counts) -> bool:
        """Whether it is being scored."""
        return self._key(soup) in self._open

    def entry(self, soup: Counts) -> Entry | None:
        """What was told of a soup; None: nothing yet. Of experts that are not packed, one alone is its own trial."""
        found = self._entries.get(self._key(soup))
        if sum(map(bool, soup)) > 1 or (self.packed and (found is None or found.value is not None)):
            return found
        # where the packed one could not be scored, the expert as it was is what there is to compare with
        return self._single.get(self.names[next(i for i, count in enumerate(soup) if count)], found)

    def order(self) -> Sequence[int]:
        """The experts that could be scored alone, best first, of equals by name."""
        scored = [i for i, name in enumerate(self.names) if name in self._single]
        scored.sort(key=lambda i: self.names[i])
        return sorted(scored, key=lambda i: self._single[self.names[i]].rank, reverse=True)

    def own_scores(self, position: int) -> tuple[TaskScore, ...]:
        """The scores of an expert alone that was scored, document by document."""
        read = self._single[self.names[position]].scores
        return () if read is None else read()

    def reserve(self, recipe: Recipe | None) -> None:
        """Note that a recipe is being scored."""
        if (key := self.shares(recipe)) is not None:
            self._open.add(key)

    def observe(self, observation: Observation) -> None:
        """Note a trial that ended: a soup's, or an expert's."""
        entry = Entry(observation.value, observation.violation, observation.scores)
        if observation.origin in self._awaited:
            self._awaited.discard(observation.origin)
            if observation.value is not None:
                self._single[observation.origin.removeprefix(expert_origin(""))] = entry
        if (key := self.shares(observation.recipe)) is not None:
            self._open.discard(key)
            self._entries[key] = entry

    def shares(self, recipe: Recipe | None) -> Shares | None:
        """The weights of a plain average, which add up to 1; None: the recipe is none.

        However it is written: a soup and a start that are one average share one evaluation, and with it one wording.
        """
        if recipe is None or recipe.compress != self._space.compress or recipe.overrides or recipe.slices:
            return None
        found = {tuple(group.weights.get(name, 0.0) for name in self.names) for group in recipe.groups}
        plain = all(group.method == "linear" and group.parameters in ({}, _NORMAL) for group in recipe.groups)
        if len(found) != 1 or not plain or sum(weights := found.pop()) <= 0:
            return None
        return tuple(round(weight / sum(weights), _DIGITS) for weight in weights)

    def _key(self, soup: Counts) -> Shares:
        least = reduced(soup)
        if least not in self._keys:
            self._keys[least] = tuple(round(share, _DIGITS) for share in shares(least, self.names).values())
        return self._keys[least]
