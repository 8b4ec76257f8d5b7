"""A rule for a soup as a strategy: what it needs is proposed, what is told is written into its book."""

from collections.abc import Callable, Sequence

from search.soups.book import Book
from search.soups.oracle import Missing, Oracle
from search.soups.paired import Paired
from search.soups.planning import DEEPEST, Ended, next_offer
from search.strategies.contract import Exhausted, Observation, Proposal, Wait

Rule = Callable[[Oracle, Sequence[int]], object]
_SAID = 4  # of the last decisions, those that the end of the search names
_LEFT = 2  # for each expert, trials that looking ahead leaves to the rule


class SoupSearch:
    """The strategy of one rule.

    Args:
        rule: asks an oracle about the experts that could be scored, which it is given best first.
        trials: of the study: looking ahead spends none that the rule itself may need.
    """

    def __init__(self, book: Book, paired: Paired, rule: Rule, trials: int) -> None:
        self._book, self._paired, self._rule, self._trials = book, paired, rule, trials

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """The next soup that the rule needs, or with idle workers one that it may need."""
        if not self._book.begun:
            return Wait()
        order = self._book.order()
        if not order:
            return Exhausted("no expert could be scored alone")
        spare = self._trials - number > _LEFT * len(self._book.names)
        found = next_offer(lambda oracle: self._rule(oracle, order), self._book, DEEPEST if spare else 1)
        if found is None:
            return Wait()
        if isinstance(found, Ended):
            return Exhausted(_summary(self.explain()))
        recipe = self._book.recipe(found.soup)
        self._book.reserve(recipe)
        return Proposal(None, recipe, by=found.label)

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Note a recipe that is being scored."""
        self._book.reserve(proposal.recipe)

    def observe(self, observation: Observation) -> None:
        """Note a trial that ended: a soup's, or an expert's."""
        self._paired.refer(observation)
        self._book.observe(observation)

    def explain(self) -> tuple[str, ...]:
        """Every decision so far and why it was made, a line each; then what it waits for, or what it ended with."""
        order = self._book.order()
        if not self._book.begun:
            return ("waits for the experts' own scores",)
        if not order:
            return ("ends: no expert could be scored alone",)
        oracle = Oracle(self._book, {})
        try:
            self._rule(oracle, order)
        except Missing as missing:
            waits = ", ".join(offer.label for offer in missing.offers)
            return (*oracle.lines, f"waits for {waits}")
        return tuple(oracle.lines)


def _summary(lines: Sequence[str]) -> str:
    """What it ended with, and what was rejected after the last change."""
    last = max((i for i, line in enumerate(lines) if " accepted: " in line), default=-1)
    rejected = [line for line in lines[last + 1 :] if " rejected: " in line]
    more = [f"{len(rejected) - _SAID} more rejected"] if len(rejected) > _SAID else []
    return "; ".join([f"it {lines[-1]}", *rejected[:_SAID], *more])
