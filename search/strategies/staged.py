"""A strategy of parts that take turns: each proposes its share of the trials, and all of them learn of every trial."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from search.strategies.contract import Exhausted, Observation, Proposal, Strategy, Wait


@dataclass(frozen=True)
class Part:
    """One part.

    Attributes:
        name: what the origin of its trials says.
        trials: how many it proposes before the next part does; None: until it has nothing left.
    """

    name: str
    strategy: Strategy
    trials: int | None = None


class Staged:
    """Parts one after the other.

    Whose turn it is depends on how many trials each part has, so it is found again after a restart. A part that waits
    lets the next one go on: no worker stands idle for it.

    Args:
        starts: so many trials belong to no part.
    """

    def __init__(self, parts: Sequence[Part], starts: int) -> None:
        self._parts, self._starts = parts, starts
        self._counts = dict.fromkeys((part.name for part in parts), 0)

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """The first part's whose turn it is and who has a proposal."""
        waits = False
        for part in self._parts:
            if part.trials is not None and self._counts[part.name] >= part.trials:
                continue
            found = part.strategy.propose(number)
            if isinstance(found, Proposal):
                self._counts[part.name] += 1
                return replace(found, by=":".join(filter(None, (part.name, found.by))))
            waits = waits or isinstance(found, Wait)
        return Wait() if waits else Exhausted()

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Tell the part that proposed it; all of them of a start."""
        if number < self._starts:
            for part in self._parts:
                part.strategy.reserve(number, proposal)
            return
        name, _, rest = proposal.by.partition(":")
        for part in self._parts:
            if part.name == name:
                self._counts[name] += 1
                part.strategy.reserve(number, replace(proposal, by=rest))

    def observe(self, observation: Observation) -> None:
        """Tell every part."""
        for part in self._parts:
            part.strategy.observe(observation)
