"""The rule by which arms share trials: successive halving (Jamieson and Talwalkar, arXiv:1502.07943) with a way back.

What is known before the first trial is the first round: the half of the arms that begins better goes on. In every
other round all arms that are left get the same number of trials, then the better half goes on. The last arm gets what
remains, in blocks; after a block that it had alone, an arm that was left behind while it gained more per trial, and
that could still overtake, competes with it for another block; after a block that gained nothing, so does one that was
never tried, while there is time.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LONGEST = 20  # trials that one arm gets in a round, where a study has no number of trials of its own
BLOCKS = 4  # of the last arm, in a round's trials
LEAST = 8  # trials of a block
WORTH_A_LOOK = 1 / 3  # of all trials must be left for an arm that was never tried: the last ones polish
KEPT_AT_FIRST = 2  # arms at least that begin: what is known of each is one recipe
SLOWER = 0.5  # gains shrink: what an arm can still gain, as a share of what its last pace would give

Rank = tuple[float, float]  # minus how far it is beyond the constraints, then its value; larger is better
NOTHING: Rank = (-math.inf, -math.inf)


@dataclass
class _Arm:
    """How an arm stands.

    Attributes:
        before: its best when the round began.
        taken: its trials of this round that ended.
        gain, pace: what the last round that it took part in added to its value, in all and per trial.
        tried: whether it ever had a trial.
    """

    best: Rank = NOTHING
    before: Rank = NOTHING
    taken: int = 0
    gain: float = 0.0
    pace: float = 0.0
    tried: bool = False

    @property
    def bound(self) -> Rank:
        """What it may be worth soon: its best, and once more what it just gained."""
        return self.best[0], self.best[1] + self.gain


class Halving:
    """Shares trials among arms.

    Args:
        arms: by name.
        trials: how many there are to share.

    Attributes:
        alive: the arms that compete now, in the order given.
    """

    def __init__(self, arms: Sequence[str], trials: int) -> None:
        self._arms = {name: _Arm() for name in arms}
        self._trials, self._spent = trials, 0
        self._share = max(trials // (math.ceil(math.log2(max(len(arms), 1))) + 1), 1)
        self._raced = len(arms) == 1  # whether halving has come to its end
        self.alive = list(arms)

    @property
    def longest(self) -> int:
        """How many trials an arm gets that is never left behind."""
        rounds, left, total = 0, len(self._arms), 0
        while left > 1:
            total += max(min(self._share, LONGEST * left) // left, 1)
            rounds, left = rounds + 1, math.ceil(left / 2)
        return total + max(self._trials - rounds * self._share, 0)

    def begin(self) -> None:
        """All that is known before the first trial was told."""
        if len(self.alive) == len(self._arms) and len(self.alive) > KEPT_AT_FIRST:  # else a round was faster
            self._keep(max(math.ceil(len(self.alive) / 2), KEPT_AT_FIRST))

    def choose(self, open_: Mapping[str, int]) -> str | None:
        """Whose turn it is: of those alive the one with the fewest trials this round, of equals the most promising.

        Args:
            open_: trials of each arm that did not end yet.
        """
        if not self.alive:
            return None
        order = {name: index for index, name in enumerate(self.alive)}

        def key(name: str) -> tuple[int, float, float, int]:
            arm = self._arms[name]
            return arm.taken + open_.get(name, 0), -arm.bound[0], -arm.bound[1], order[name]

        return min(self.alive, key=key)

    def note(self, name: str, rank: Rank | None, *, own: bool) -> None:
        """A trial ended that is of that arm's kind.

        Args:
            rank: None: it gave no value.
            own: whether it is one of those that are shared.
        """
        arm = self._arms[name]
        if rank is not None and rank > arm.best:
            arm.best = rank
        if not own:
            if arm.taken == 0:  # known before the arm's turn: nothing it gained
                arm.before = arm.best
            return
        arm.taken, arm.tried = arm.taken + 1, True
        self._spent += 1
        if sum(self._arms[n].taken for n in self.alive) >= self._quota:
            self._close()

    @property
    def _quota(self) -> int:
        """Trials of this round."""
        if self._raced:
            return max(min(self._share, LONGEST * BLOCKS) // BLOCKS, LEAST)
        return min(self._share, LONGEST * len(self.alive))

    def _close(self) -> None:
        """End a round."""
        alone = len(self.alive) == 1
        for arm in self._arms.values():
            if arm.taken:
                arm.gain = _gain(arm.before, arm.best)
                arm.pace = arm.gain / arm.taken
            arm.before, arm.taken = arm.best, 0
        if alone:
            back = self._comeback(self.alive[0])
            self.alive = [name for name in self._arms if name in (self.alive[0], back)]
            return
        self._keep(math.ceil(len(self.alive) / 2))
        self._raced = self._raced or len(self.alive) == 1

    def _keep(self, count: int) -> None:
        """Leave all but the best behind."""
        kept = sorted(self.alive, key=lambda name: self._arms[name].bound, reverse=True)[:count]
        self.alive = [name for name in self._arms if name in kept]

    def _comeback(self, leader: str) -> str | None:
        """The arm that competes with the leader again, if one may."""
        first, left = self._arms[leader], max(self._trials - self._spent, 0)

        def hope(name: str) -> Rank:
            arm = self._arms[name]
            return arm.best[0], arm.best[1] + SLOWER * arm.pace * left

        others = [n for n, a in self._arms.items() if n != leader and a.pace > first.pace and hope(n) > first.best]
        if not others and first.pace <= 0 and left > self._trials * WORTH_A_LOOK:
            others = [name for name, arm in self._arms.items() if not arm.tried]
        return max(others, key=hope, default=None)


def _gain(before: Rank, after: Rank) -> float:
    """What was added to the value; 0 where the two are not of the same distance to the constraints."""
    return after[1] - before[1] if before[0] == after[0] and math.isfinite(before[1]) else 0.0
