"""Greedy soup: add experts to a uniform average one by one, in the order of their own scores.

Wortsman et al., "Model soups" (arXiv:2203.05482), recipe 1: an expert stays if the average with it is not
worse. Later passes offer every expert again, so that one may count twice; the search ends with the first
pass that adds nothing. Ingredients are whole models: the space's layers and methods do not matter here.
"""

from collections.abc import Mapping

from merging.recipe import Recipe
from search.space import Space
from search.starts.start import expert_origin
from search.strategies.contract import Exhausted, Observation, Proposal, Wait

_Rank = tuple[float, float]  # minus how far it is beyond the constraints, then its value: larger is better


class GreedySoup:
    """The greedy soup of the study's experts."""

    def __init__(self, space: Space) -> None:
        self._space = space
        self._values: dict[str, _Rank | None] = {}  # by recipe
        self._awaited = {expert_origin(name) for name in space.experts}
        self._single: dict[str, _Rank] = {}
        self._open: set[str] = set()

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """The next soup whose score the greedy rule needs."""
        if self._awaited:
            return Wait()
        recipe = self._next()
        if recipe is None:
            return Exhausted()
        key = recipe.to_json()
        if key in self._open:
            return Wait()
        self._open.add(key)
        return Proposal(None, recipe)

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Note a soup that is being scored."""
        if proposal.recipe is not None:
            self._open.add(proposal.recipe.to_json())

    def observe(self, observation: Observation) -> None:
        """Note a soup's score, or an expert's."""
        self._awaited.discard(observation.origin)
        prefix = expert_origin("")
        rank = None if observation.value is None else (-observation.violation, observation.value)
        if observation.origin.startswith(prefix) and rank is not None:
            self._single[observation.origin.removeprefix(prefix)] = rank
        if observation.recipe is not None:
            self._values[observation.recipe.to_json()] = rank

    def _next(self) -> Recipe | None:
        """Replay the greedy rule over what is known; the first unknown soup is what comes next."""
        order = sorted(sorted(self._single), key=lambda name: self._single[name], reverse=True)
        if not order:
            return None
        counts, best = {order[0]: 1}, self._single[order[0]]
        if self._space.compress is not None:  # soups compare with the best expert as they see it
            alone = self._soup(counts)
            if alone.to_json() not in self._values:
                return alone
            best = self._values[alone.to_json()] or best
        candidates, added = order[1:], True
        while added:
            added = False
            for name in candidates:
                tried = {**counts, name: counts.get(name, 0) + 1}
                recipe = self._soup(tried)
                key = recipe.to_json()
                if key not in self._values:
                    return recipe
                value = self._values[key]
                # a new expert is kept at a tie, as in the paper; counting one twice must gain, or it would not end
                if value is not None and (value > best or (value == best and name not in counts)):
                    counts, best, added = tried, value, True
            candidates = order
        return None

    def _soup(self, counts: Mapping[str, int]) -> Recipe:
        total = sum(counts.values())
        return self._space.uniform("linear", {n: counts.get(n, 0) / total for n in self._space.experts}, {})
