"""The paired test: a trial is stopped as soon as it is worse than the best one, beyond chance.

Both were scored on the rung's documents, so each document is its own comparison and how hard it is cancels out. The
error rate is stated: a trial that is no worse than the incumbent on all search documents is stopped with probability
at most `ALPHA`, shared equally (Bonferroni) by the looks that the rungs below the last allow.
"""

from evaluation.statistics import p_worse
from search.racing.contract import Contender, Field, Promote, Stop
from search.seeds import derive

ALPHA = 0.05
DRAWS = 2_000  # puts the error of a p of 0.01 at 0.002


class PairedTest:
    """Stops what a one-sided paired permutation test finds worse than the incumbent.

    Args:
        rungs: of the study, the last included.
        seed: the study's; the test's draws depend on it, the trials compared and the rung, and on nothing else.
    """

    def __init__(self, rungs: int, seed: int) -> None:
        self._level = ALPHA / max(1, rungs - 1)
        self._seed = seed

    def entry(self, number: int) -> int:
        """The smallest rung."""
        return 0

    def decide(self, contender: Contender, field: Field) -> Promote | Stop:
        """Go on to the next rung, unless that is surely in vain."""
        best = field.incumbent
        if best is not None:
            seed = derive(self._seed, "race", contender.number, contender.rung, best.number)
            p = p_worse(field.measure, contender.scores, best.scores, draws=DRAWS, seed=seed)
            if p < self._level:
                return Stop(f"paired_test: worse than trial {best.number} (p {p:.2g}, below {self._level:.2g})")
        return Promote(contender.rung + 1)
