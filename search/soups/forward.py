"""Putting a soup together by adding experts, in two orders, and cleaning it up at the end."""

from collections.abc import Sequence
from dataclasses import dataclass

from search.soups.acceptance import Acceptance
from search.soups.backward import steepest_removals
from search.soups.counts import Counts, Offer, alone, described, labelled, with_one_more
from search.soups.oracle import Oracle, same


@dataclass(frozen=True)
class Forward:
    """The greedy soup and its variants.

    Attributes:
        names: of the experts.
        steepest: all additions are looked at before the best is taken; else each as it comes.
        repeats: experts that are in the soup are offered again, to count twice.
        retry: who was rejected is offered once more, if the soup is another by then.
        clean: decides what is dropped at the end; None: nothing is.
    """

    names: Sequence[str]
    acceptance: Acceptance
    steepest: bool
    repeats: bool
    retry: bool
    clean: Acceptance | None

    def run(self, oracle: Oracle, order: Sequence[int]) -> Counts:
        """The soup. Raises Missing.

        Args:
            order: the experts that could be scored, best first.
        """
        soup = alone(order[0], len(self.names))
        first = Offer(soup, labelled(f"{self.names[order[0]]} alone"))
        [entry] = oracle.need([first])
        oracle.say(f"begins with the best expert, {self.names[order[0]]}: {entry.said}")
        soup = self._in_rounds(oracle, soup, order) if self.steepest else self._in_passes(oracle, soup, order)
        if self.clean is not None:
            soup = steepest_removals(oracle, soup, self.names, self.clean)
        oracle.say(f"ends with {described(soup, self.names)}")
        return soup

    def _in_passes(self, oracle: Oracle, soup: Counts, order: Sequence[int]) -> Counts:
        """Each expert as it comes; later passes offer all of them, until one adds nothing."""
        offered, added = list(order[1:]), True
        while added:
            began, rejected = soup, []
            for position in offered:
                after = self._offered(oracle, soup, position)
                if after == soup:
                    rejected.append((position, soup))
                soup = after
            added = self.repeats and soup != began
            if self.repeats:
                offered = list(order)
            elif self.retry:
                for position, then in rejected:
                    if then != soup:
                        soup = self._offered(oracle, soup, position)
        return soup

    def _offered(self, oracle: Oracle, soup: Counts, position: int) -> Counts:
        offer = self._addition(soup, position)
        if same(offer.soup, soup):
            return soup
        return soup if oracle.pick(soup, [offer], self.acceptance) is None else offer.soup

    def _in_rounds(self, oracle: Oracle, soup: Counts, order: Sequence[int]) -> Counts:
        """Of all additions the best, as many times as there are experts."""
        for _ in self.names:
            offers = [self._addition(soup, i) for i in order if self.repeats or not soup[i]]
            offers = [offer for offer in offers if not same(offer.soup, soup)]
            taken = oracle.pick(soup, offers, self.acceptance) if offers else None
            if taken is None:
                break
            soup = offers[taken].soup
        return soup

    def _addition(self, soup: Counts, position: int) -> Offer:
        # a new expert is kept at a tie, as in the paper; counting one twice must gain, or it would not end
        label = labelled(f"+{self.names[position]}")
        return Offer(with_one_more(soup, position), label, gain=soup[position] > 0)
