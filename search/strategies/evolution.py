"""Evolution: each trial is a child of two recipes of an archive, which is found again from what was told.

There are no generations: a child is made whenever a worker is free, of whatever was told by then. The archive says
who the parents are (`scheme`): niches, elites of cells, the most novel, or simply the best. Draws are keyed by the
study's seed and the trial's number.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from merging.catalog import Scalar
from merging.errors import InvalidRecipe, InvalidStudy
from search.evolution.binary import binary_child
from search.evolution.elites import Elites
from search.evolution.genome import Genome, Inherit, Mutate, from_unit, is_number, read_genome
from search.evolution.member import Archive
from search.evolution.mutation import gaussian, polynomial
from search.evolution.niches import Niches
from search.evolution.novelty import Novelty
from search.evolution.splitting import draw_split, split_child
from search.evolution.tournament import Tournament
from search.seeds import derive
from search.space import Dimension, Space, dimensions
from search.strategies.contract import Exhausted, Observation, Proposal, Wait
from search.strategies.declared import options_of
from search.strategies.membership import member_of
from search.strategies.opening import Opening

TRIES = 20  # children that were tried already, before one is drawn at random; and as many of these

Cross = Callable[[Genome, Genome, np.random.Generator], Inherit]
Vary = Callable[[Genome, np.random.Generator], Mutate]


@dataclass(frozen=True)
class Operators:
    """How a child is made of two parents."""

    cross: Cross
    vary: Vary


class Evolution:
    """See the module.

    Args:
        begin: points of the space among the starts: parents as long as nothing was told.
        weights: of the tasks.

    Raises:
        InvalidStudy: the space has nothing to vary.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        begin: Sequence[Mapping[str, Scalar]],
        weights: Mapping[str, float],
        archive: Archive[Genome],
        operators: Operators,
    ) -> None:
        if not dimensions(space):
            names = ", ".join(m.name for m in space.methods)
            raise InvalidStudy("space.methods", names, "leaves nothing to vary", "add a method with parameters")
        self._space, self._seed, self._weights = space, seed, weights
        self._begin = tuple(read_genome(space, params) for params in begin)
        self._operators = operators
        self._tried: set[tuple[tuple[str, Scalar], ...]] = set()
        self.archive = archive

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """A child that was not tried before; in a space so small that there is none, one that was."""
        for attempt in range(2 * TRIES):
            rng = np.random.default_rng(derive(self._seed, number, attempt))
            proposal = self._child(rng, number) if attempt < TRIES else self._stranger(rng)
            if proposal.recipe is not None and _key(proposal.params) not in self._tried:
                break
        self._tried.add(_key(proposal.params))
        return proposal

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Take note of what need not be tried again."""
        if proposal.params is not None:
            self._tried.add(_key(proposal.params))

    def observe(self, observation: Observation) -> None:
        """Offer the archive what lies in the space and was scored."""
        params = observation.params
        if params is None or observation.value is None:
            return
        member = member_of(observation, read_genome(self._space, params), self._weights)
        if member is not None:
            self.archive.add(member)

    def _child(self, rng: np.random.Generator, number: int) -> Proposal:
        parents = self.archive.parents(rng, number)
        if parents is not None:
            first, second = (member.genome for member in parents)
        elif self._begin:
            first = second = self._begin[int(rng.integers(len(self._begin)))]
        else:
            return self._stranger(rng)
        inherit, mutate = self._operators.cross(first, second, rng), self._operators.vary(first, rng)
        return self._born(lambda d: mutate(d, inherit(d)))

    def _stranger(self, rng: np.random.Generator) -> Proposal:
        """Somebody without parents, drawn uniformly."""
        return self._born(lambda dimension: _drawn(dimension, rng))

    def _born(self, pick: Inherit) -> Proposal:
        params: dict[str, Scalar] = {}

        def note(dimension: Dimension) -> Scalar:
            params[dimension.name] = pick(dimension)
            return params[dimension.name]

        try:
            return Proposal(params, self._space.walk(note))
        except InvalidRecipe as error:
            return Proposal(params, None, str(error))


def evolution(opening: Opening) -> Evolution:
    """The strategy with its options.

    Raises:
        InvalidStudy: the space has nothing to vary.
    """
    options, weights = options_of("evolution", opening.options), opening.weights
    size = int(options["population"])
    archives: dict[str, Callable[[], Archive[Genome]]] = {
        "niches": lambda: Niches(size, weights),
        "map_elites": lambda: Elites(weights),
        "novelty": lambda: Novelty(size, weights),
        "genetic": lambda: Tournament(size),
    }
    begin = [start.params for start in opening.starts if start.params is not None]
    archive = archives[options["scheme"]]()
    return Evolution(opening.space, opening.seed, begin, weights, archive, _operators(options))


def _operators(options: Mapping[str, Any]) -> Operators:
    deviation, switch = float(options["mutation"]), float(options["switch"])

    def change(genome: Genome) -> float:
        return min(1.0, switch / max(1, genome.choices))

    if options["scheme"] == "genetic":
        return Operators(binary_child, lambda genome, rng: polynomial(rng, genome.numbers, change(genome)))
    return Operators(
        lambda first, second, rng: split_child(first, second, draw_split(rng)),
        lambda genome, rng: gaussian(rng, deviation, change(genome)),
    )


def _drawn(dimension: Dimension, rng: np.random.Generator) -> Scalar:
    """Uniform in the dimension's range."""
    if is_number(dimension):
        return from_unit(dimension, float(rng.random()))
    choices = dimension.choices or (False, True)
    return choices[int(rng.integers(len(choices)))]


def _key(params: Mapping[str, Scalar] | None) -> tuple[tuple[str, Scalar], ...]:
    return tuple(sorted((params or {}).items()))
