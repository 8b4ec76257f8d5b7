"""How far a proposal may lie from the best known points: a step that grows with success and shrinks without.

Eriksson et al., "Scalable Global Optimization via Local Bayesian Optimization" (TuRBO, arXiv:1910.01739), begun at half
its width, since the starts are good, and patient for the root of the dimensions alone, since budgets are small.
"""

import math

FIRST, LEAST, MOST = 0.2, 0.0125, 0.5  # half a side, as a share of each range
SUCCESSES = 3
PATIENCE = 4


class Region:
    """The step of one search.

    Args:
        size: how many dimensions it has.

    Attributes:
        reach: half a side.
    """

    def __init__(self, size: int) -> None:
        self._patience = max(PATIENCE, math.isqrt(size))
        self._successes = self._failures = 0
        self.reach = FIRST

    def note(self, success: bool) -> None:
        """Take note of an own trial that ended: whether it was better than all before."""
        self._successes, self._failures = (self._successes + 1, 0) if success else (0, self._failures + 1)
        if self._successes == SUCCESSES:
            self.reach, self._successes = min(2.0 * self.reach, MOST), 0
        elif self._failures >= self._patience:
            self.reach, self._failures = self.reach / 2.0, 0
            if self.reach < LEAST:
                self.reach = FIRST
