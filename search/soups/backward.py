"""Taking experts out of a soup."""

from collections.abc import Sequence

from search.soups.acceptance import Acceptance
from search.soups.counts import Counts, Offer, labelled, without
from search.soups.oracle import Oracle


def steepest_removals(oracle: Oracle, soup: Counts, names: Sequence[str], acceptance: Acceptance) -> Counts:
    """Drop the expert whose removal helps most, again and again, while that is accepted. Raises Missing."""
    while len(inside := [i for i, count in enumerate(soup) if count]) > 1:
        offers = [_removal(soup, i, names) for i in inside]
        taken = oracle.pick(soup, offers, acceptance)
        if taken is None:
            break
        soup = offers[taken].soup
    return soup


def removals_in_passes(
    oracle: Oracle, soup: Counts, names: Sequence[str], order: Sequence[int], passes: int, acceptance: Acceptance
) -> Counts:
    """Look at each expert in turn, the weakest first, and drop it if that is accepted. Raises Missing.

    Args:
        order: the experts, best first.
        passes: how often each is looked at, at most.
    """
    for _ in range(passes):
        began = soup
        for position in reversed(order):
            if soup[position] and sum(map(bool, soup)) > 1:
                offer = _removal(soup, position, names)
                soup = soup if oracle.pick(soup, [offer], acceptance) is None else offer.soup
        if soup == began:
            break
    return soup


def _removal(soup: Counts, position: int, names: Sequence[str]) -> Offer:
    return Offer(without(soup, position), labelled(f"-{names[position]}"))
