"""Hyperband over documents: successive halving in brackets that begin at different rungs.

Li et al., "Hyperband" (arXiv:1603.06560). Halving from the smallest rung throws away what only more documents would
tell apart; a bracket that begins higher does so less, for fewer trials. Each trial is dealt to a bracket by its number.
"""

from collections.abc import Callable

from search.racing.contract import Contender, Field, Promote, Stop
from search.racing.halving import ETA, among_best
from search.seeds import derive

MOST_BRACKETS = 3  # one that begins yet higher would be nearly full scoring


class Hyperband:
    """Halving within brackets.

    Args:
        rungs: of the study; the last is no place to begin.
        raced: whether the trial of that number is in the race at all, being no baseline.
    """

    def __init__(self, rungs: int, seed: int, raced: Callable[[int], bool]) -> None:
        self._brackets = max(1, min(MOST_BRACKETS, rungs - 1))
        self._seed, self._raced = seed, raced

    def entry(self, number: int) -> int:
        """The bracket's first rung. Each bracket has fewer trials by the factor by which halving thins them out."""
        weights = [ETA ** (self._brackets - 1 - bracket) for bracket in range(self._brackets)]
        draw = derive(self._seed, "bracket", number) / 2**32 * sum(weights)
        for bracket, weight in enumerate(weights):
            draw -= weight
            if draw < 0:
                return bracket
        return self._brackets - 1

    def decide(self, contender: Contender, field: Field) -> Promote | Stop:
        """Go on if it is among the best of its bracket and the baselines at this rung."""
        own = self.entry(contender.number)
        seen = field.seen(contender.rung).items()
        rivals = {number: value for number, value in seen if not self._raced(number) or self.entry(number) == own}
        return among_best(contender, rivals, f"hyperband, bracket {own}")
