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

    return tpe(opening.space, opening.seed, opening.objectives, len(opening.starts))


def _cmaes(opening: Opening) -> Strategy:
    from search.strategies.evolved import Evolved  # loads scipy: a second that the others need not wait

    return Evolved(opening)


def _gp(opening: Opening) -> Strategy:
    from search.strategies.gaussian import Gaussian  # loads scipy

    return Gaussian(opening)


def _qmc(opening: Opening) -> Strategy:
    from search.strategies.laid import qmc  # loads scipy

    return qmc(opening)


def _grid(opening: Opening) -> Strategy:
    from search.strategies.laid import grid  # loads scipy

    return grid(opening)


def _nsga2(opening: Opening) -> Strategy:
    from search.strategies.nsga.search import nsga2

    return nsga2(opening)


def _nsga3(opening: Opening) -> Strategy:
    from search.strategies.nsga.search import nsga3

    return nsga3(opening)


def _arms(opening: Opening) -> Strategy:
    from search.strategies.arms.search import Arms  # loads scipy and Optuna

    return Arms(opening)


def _greedy_soup(opening: Opening) -> Strategy:
    from search.strategies.soup import greedy_soup

    return greedy_soup(opening)


def _pruned_soup(opening: Opening) -> Strategy:
    from search.strategies.soup import pruned_soup

    return pruned_soup(opening)


def _ensemble_soup(opening: Opening) -> Strategy:
    from search.strategies.ensemble import ensemble_soup

    return ensemble_soup(opening)


def _evolution(opening: Opening) -> Strategy:
    from search.strategies.evolution import evolution

    return evolution(opening)


def _layer_order(opening: Opening) -> Strategy:
    from search.strategies.layer_order import LayerOrder

    return LayerOrder(opening)


def _carbs(opening: Opening) -> Strategy:
    from search.strategies.carbs.search import Carbs  # loads scipy

    return Carbs(opening)


def _inclusion(opening: Opening) -> Strategy:
    from search.strategies.inclusion.search import Inclusion  # loads scipy

    return Inclusion(opening)


def _proposer(opening: Opening) -> Strategy:
    from search.strategies.proposer.search import Proposer  # loads Optuna

    return Proposer(opening)


def _auto(opening: Opening) -> Strategy:
    from search.strategies.auto import auto

    return auto(opening)


_MAKERS: dict[str, Callable[[Opening], Strategy]] = {
    "auto": _auto,
    "random": _random,
    "tpe": _tpe,
    "cmaes": _cmaes,
    "gp": _gp,
    "qmc": _qmc,
    "grid": _grid,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "arms": _arms,
    "greedy_soup": _greedy_soup,
    "pruned_soup": _pruned_soup,
    "ensemble_soup": _ensemble_soup,
    "evolution": _evolution,
    "layer_order": _layer_order,
    "carbs": _carbs,
    "inclusion": _inclusion,
    "proposer": _proposer,
}
