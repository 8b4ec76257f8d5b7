"""The strategies `nsga2` and `nsga3`: evolution towards a front of several objectives.

Optuna's samplers of these names write into a trial, when it is asked for, which generation it belongs to; that depends
on what was finished at that moment and is not kept by our rows, so a restart would breed from other parents. These
are small versions of our own without generations: a child is bred from whoever is best when it is asked for.
"""

import numpy as np

from merging.catalog import Scalar
from search.seeds import derive
from search.strategies.contract import Exhausted, Observation, Proposal, Wait
from search.strategies.near import draw_near
from search.strategies.nsga.breeding import child
from search.strategies.nsga.population import Member, Population
from search.strategies.opening import Opening

SIZE = 20  # of the population: studies have tens to hundreds of trials
STEP = 0.1  # of the mutation, as a share of each range


class Nsga:
    """NSGA-II or NSGA-III over any space and any number of objectives, constraints first.

    Until the population is full, trials are drawn near the starts, one after the other.

    Args:
        opening: of its options `population` and `mutation`; absent ones are at their defaults.
        references: NSGA-III.
    """

    def __init__(self, opening: Opening, *, references: bool) -> None:
        self._space, self._seed, self._starts = opening.space, opening.seed, len(opening.starts)
        self._population = Population(opening.options.get("population", SIZE), references=references)
        self._step = opening.options.get("mutation", STEP)
        self._known: list[dict[str, Scalar]] = []  # the starts that lie in the space

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """Breed a child."""
        rng = np.random.default_rng(derive(self._seed, number))
        if not self._population.full:
            turn = number % max(len(self._known), 1)
            return draw_near(self._space, self._known[turn:] + self._known[:turn], rng)
        first, second = self._population.parents(rng)
        return child(self._space, first.params, second.params, self._step, rng)

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Nothing to note: children do not depend on what is open."""

    def observe(self, observation: Observation) -> None:
        """Whoever has a value and is a point of the space joins the population."""
        if observation.params is None or observation.value is None:
            return
        if observation.number < self._starts:
            self._known.append(observation.params)
        values = observation.values or (observation.value,)
        self._population.join(Member(observation.params, values, observation.violation))


def nsga2(opening: Opening) -> Nsga:
    """NSGA-II."""
    return Nsga(opening, references=False)


def nsga3(opening: Opening) -> Nsga:
    """NSGA-III."""
    return Nsga(opening, references=True)
