"""Soups that begin with everybody: pruned, and the ranked soups of the best so many."""

from collections.abc import Sequence
from dataclasses import dataclass

from search.soups.acceptance import Acceptance
from search.soups.backward import removals_in_passes, steepest_removals
from search.soups.counts import Counts, Offer, described
from search.soups.oracle import Oracle


@dataclass(frozen=True)
class Pruned:
    """All experts, less those without whom the soup is better (Dansereau et al., arXiv:2301.10092).

    Attributes:
        passes: how often each is looked at, one by one; None: of all removals the best is taken, while one is accepted.
    """

    names: Sequence[str]
    acceptance: Acceptance
    passes: int | None

    def run(self, oracle: Oracle, order: Sequence[int]) -> Counts:
        """The soup. Arguments as of `Forward.run`. Raises Missing."""
        soup = best_of(order, len(order), len(self.names))
        [entry] = oracle.need([Offer(soup, f"all {len(order)}")])
        oracle.say(f"begins with all {len(order)} experts: {entry.said}")
        if self.passes is None:
            soup = steepest_removals(oracle, soup, self.names, self.acceptance)
        else:
            soup = removals_in_passes(oracle, soup, self.names, order, self.passes, self.acceptance)
        oracle.say(f"ends with {described(soup, self.names)}")
        return soup


@dataclass(frozen=True)
class Ranked:
    """The best of the soups of the best 1, 2, 3, ... experts."""

    names: Sequence[str]

    def run(self, oracle: Oracle, order: Sequence[int]) -> Counts:
        """The soup. Arguments as of `Forward.run`. Raises Missing."""
        offers = [Offer(best_of(order, k, len(self.names)), f"top {k}") for k in range(1, len(order) + 1)]
        found = oracle.need(offers)
        for offer, entry in zip(offers, found, strict=True):
            oracle.say(f"{offer.label}: {entry.said}")
        best = max(range(len(offers)), key=lambda k: (found[k].rank, -k))
        oracle.say(f"ends with {described(offers[best].soup, self.names)}")
        return offers[best].soup


def best_of(order: Sequence[int], most: int, experts: int) -> Counts:
    """The plain average of the best so many."""
    return tuple(int(i in order[:most]) for i in range(experts))
