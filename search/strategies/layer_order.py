"""Layer order: which layers the result has, and how often, found by evolution; with one weight an expert.

It begins at the best start that treats all layers alike, and keeps its orders in niches, as `evolution` does. Its
recipes lie outside the search space; the state is read from the recipes themselves.
"""

import numpy as np

from merging.catalog import CATALOG
from search.evolution.member import Member
from search.evolution.niches import Niches
from search.evolution.order import METHOD, Limits, Order, as_recipe, changed, crossed, read_order
from search.seeds import derive
from search.strategies.contract import Exhausted, Observation, Proposal, Wait
from search.strategies.declared import options_of
from search.strategies.membership import member_of
from search.strategies.opening import Opening

TRIES = 20  # children that were tried already, before one is tried again
CROSSED, REORDERED, REWEIGHTED = 0.5, 0.75, 0.5  # chances of a child


class LayerOrder:
    """See the module.

    Args:
        opening: of its options `blocks`, `extra`, `mutation` and `population`; absent ones are at their defaults.
    """

    def __init__(self, opening: Opening) -> None:
        options = options_of("layer_order", opening.options)
        self._space, self._seed, self._task_weights = opening.space, opening.seed, opening.weights
        self._count, self._starts = opening.space.layer_count, len(opening.starts)
        extra = int(options["extra"]) or max(1, self._count // 4)
        self._limits = Limits(self._count, extra, int(options["blocks"]))
        self._low, self._high = _range(opening)
        self._deviation = float(options["mutation"]) * (self._high - self._low)
        self._tried: set[Order] = set()
        self._own: set[int] = set()
        self._begun: Member[Order] | None = None  # the best that others proposed
        self.archive: Niches[Order] = Niches(int(options["population"]), opening.weights)

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """A child that was not tried before; where there is none, one that was."""
        for attempt in range(TRIES):
            order = self._child(np.random.default_rng(derive(self._seed, number, attempt)), number)
            if order not in self._tried:
                break
        self._tried.add(order)
        self._own.add(number)
        return Proposal(None, as_recipe(order, self._space))

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Take note of what need not be tried again, and of whose it is."""
        if number >= self._starts:
            self._own.add(number)
        if (order := self._read(proposal)) is not None:
            self._tried.add(order)

    def observe(self, observation: Observation) -> None:
        """Offer the archive its own, and of the others the best so far, alone: from its weights the search begins."""
        order = self._read(observation)
        member = None if order is None else member_of(observation, order, self._task_weights)
        if member is None:
            return
        if member.number not in self._own:
            if self._begun is not None and member.rank <= self._begun.rank:
                return
            if self._begun is not None:
                self.archive.discard(self._begun.number)
            self._begun = member
        self.archive.add(member)

    def _read(self, tried: Proposal | Observation) -> Order | None:
        return None if tried.recipe is None else read_order(tried.recipe, tuple(self._space.experts), self._count)

    def _child(self, rng: np.random.Generator, number: int) -> Order:
        parents = self.archive.parents(rng, number)
        whole = tuple(range(self._count))
        if parents is None:
            share = min(max(1.0 / len(self._space.experts), self._low), self._high)
            first = second = Order(whole, (share,) * len(self._space.experts))
        else:
            first, second = (member.genome for member in parents)
        mix, depth, cross = float(rng.random()), float(rng.random()), bool(rng.random() < CROSSED)
        reordered, reweighted = bool(rng.random() < REORDERED), bool(rng.random() < REWEIGHTED)
        layers, weights = first.layers, np.array(first.weights)
        if cross and first != second:
            layers = crossed(first.layers, second.layers, depth)
            weights = mix * weights + (1.0 - mix) * np.array(second.weights)
        if not self._limits.allow(layers):
            layers = first.layers if self._limits.allow(first.layers) else whole
        if reordered or not reweighted:
            layers = changed(layers, self._limits, rng)
        if reweighted and self._deviation:
            weights = np.clip(weights + self._deviation * rng.standard_normal(len(weights)), self._low, self._high)
        return Order(layers, tuple(map(float, weights)))


def _range(opening: Opening) -> tuple[float, float]:
    """Of the weights: the study's bounds, else the catalog's."""
    weight = CATALOG[METHOD].weight
    assert weight is not None, f"{METHOD} has weights"
    return opening.space.bounds.get(f"{METHOD}.weight", (weight.low, weight.high))
