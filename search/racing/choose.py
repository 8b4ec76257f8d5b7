"""Racing policy by name."""

from collections.abc import Callable

from search.racing.contract import Racer
from search.racing.halving import Halving
from search.racing.history import LearnedFromHistory
from search.racing.hyperband import Hyperband
from search.racing.off import Off
from search.racing.one_shot import OneShot
from search.racing.paired import PairedTest
from search.racing.proxied import Proxied
from search.searchspec import Prune


def make_racer(policy: Prune, rungs: int, seed: int, raced: Callable[[int], bool], *, proxied: bool = False) -> Racer:
    """The policy of that name for a study of so many rungs.

    Args:
        proxied: whether the first of them is the proxy's.
        raced: whether the trial of that number is in the race, being no baseline.
    """
    if proxied:
        return Proxied(make_racer(policy, rungs - 1, seed, raced))
    if policy == "off" or rungs == 1:
        return Off(rungs)
    if policy == "paired_test":
        return PairedTest(rungs, seed)
    if policy == "halving":
        return Halving()
    if policy == "history":
        return LearnedFromHistory()
    if policy == "hyperband":
        return Hyperband(rungs, seed, raced)
    return OneShot()
