"""Strategy by name."""

from collections.abc import Sequence

from search.space import Space
from search.starts import Start
from search.strategies.contract import Strategy
from search.strategies.sampled import random, tpe
from search.strategies.soup import GreedySoup
from search.study import StrategyName


def make_strategy(
    name: StrategyName, space: Space, seed: int, starts: Sequence[Start], objectives: int = 1
) -> Strategy:
    """The strategy of that name over that space, before anything was observed.

    Args:
        objectives: how many numbers a trial is judged by; several with `random` and `tpe` alone.

    Raises:
        InvalidStudy: the strategy cannot search that space.
    """
    if name == "random":
        return random(space, seed, objectives)
    if name == "tpe":
        return tpe(space, seed, objectives)
    if name == "cmaes":
        from search.strategies.evolved import Evolved  # loads scipy: a second that the others need not wait

        return Evolved(space, seed, len(starts))
    return GreedySoup(space)
