"""Strategy by name."""

from collections.abc import Callable

from search.strategies.contract import Strategy
from search.strategies.opening import Opening


def make_strategy(name: str, opening: Opening) -> Strategy:
    """The strategy of that name, before anything was observed.

    Raises:
        InvalidStudy: the strategy cannot search that space.
    """
    return _MAKERS[name](opening)


def _random(opening: Opening) -> Strategy:
    from search.strategies.sampled import random

    return random(opening.space, opening.seed, opening.objectives)


def _tpe(opening: Opening) -> Strategy:
    from search.strategies.sampled import tpe

    return tpe(opening.space, opening.seed, opening.objectives)


def _cmaes(opening: Opening) -> Strategy:
    from search.strategies.evolved import Evolved  # loads scipy: a second that the others need not wait

    return Evolved(opening.space, opening.seed, len(opening.starts))


def _greedy_soup(opening: Opening) -> Strategy:
    from search.strategies.soup import GreedySoup

    return GreedySoup(opening.space)


_MAKERS: dict[str, Callable[[Opening], Strategy]] = {
    "random": _random,
    "tpe": _tpe,
    "cmaes": _cmaes,
    "greedy_soup": _greedy_soup,
}
