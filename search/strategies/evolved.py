"""CMA-ES on the space's numbers, from coarse to fine, begun at the best known start with a small step.

Optuna's own sampler drops results that arrive after their generation closed and keeps pickled state in trial
attributes; here a generation closes as soon as enough results are in, whichever generation they were drawn from, and
the state is replayed from the trials. Each draw is reseeded by trial number, so a replay draws the same.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from merging.catalog import Scalar
from merging.errors import InvalidRecipe
from search.seeds import derive
from search.strategies.cma.cube import Cube, Vector
from search.strategies.cma.distribution import Distribution
from search.strategies.cma.stages import plan_stages
from search.strategies.contract import Exhausted, Observation, Proposal, Wait
from search.strategies.opening import Opening

COARSE_TO_FINE = "coarse_to_fine"
RELATIVE = 2.0  # where weights count only relatively, the first steps are shares of so many times the mean one
AGAIN = 0.5  # of a stage's step, once its distribution has collapsed


class Evolved:
    """CMA-ES over a space without choices.

    It begins when all starts are observed, at the best of them; what is asked for earlier is drawn around the best
    so far. Each stage begins at the best point seen, and moves to any better one that it did not draw itself.

    Args:
        opening: of its options `granularity` and `layers`; absent ones are at their defaults.

    Attributes:
        stage: what moves together now: `coarse`, `segments` or `fine`.

    Raises:
        InvalidStudy: the space has a choice, or nothing to vary.
    """

    def __init__(self, opening: Opening) -> None:
        self._space, self._seed = opening.space, opening.seed
        self._starts = self._awaited = len(opening.starts)
        self._cube = Cube(opening.space, "cmaes")
        options, left = opening.options, max(opening.trials - len(opening.starts), 0)
        self._stages = plan_stages(
            self._cube.dimensions,
            left,
            coarse=options.get("granularity", COARSE_TO_FINE) == COARSE_TO_FINE,
            layers=options.get("layers", 0),
            profile=opening.profile,
        )
        relative = opening.space.methods[0].normalised
        self._reach = min(1.0, RELATIVE / len(opening.space.experts)) if relative else 1.0
        self._own: set[int] = set()  # the open trials that are its own
        self._known: list[Vector] = []  # the starts, while none of them is told
        self._best: tuple[tuple[float, float], Vector] | None = None
        self._index = self._spent = 0  # the stage, and its trials that ended
        self._generation: list[tuple[Vector, Observation]] = []
        self._distribution = self._begin()

    @property
    def stage(self) -> str:
        """See the class."""
        return self._stages[self._index].name

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """Draw from the current distribution."""
        self._own.add(number)
        params = self._cube.params(self._distribution.draw(derive(self._seed, number)))
        try:
            return Proposal(params, self._space.decode(params))
        except InvalidRecipe as error:
            return Proposal(params, None, str(error))

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Take note of whose it is; until a start is told, search between those that are known."""
        if number >= self._starts:
            self._own.add(number)
        elif proposal.params is not None and self._best is None:
            self._known.append(self._cube.point(proposal.params))
            self._distribution = self._begin()

    def observe(self, observation: Observation) -> None:
        """Close a generation when enough of our own draws are in, and a stage when its trials are used up."""
        own = observation.number in self._own
        self._own.discard(observation.number)
        if observation.params is not None and observation.value is not None:
            self._learn(observation, observation.params, own)
        if observation.number < self._starts:
            self._awaited -= 1
            self._distribution = self._begin()
        self._spent += own
        most = self._stages[self._index].trials
        if most is not None and self._spent >= most:
            self._index, self._spent = self._index + 1, 0
            self._distribution = self._begin()

    def _learn(self, observation: Observation, params: Mapping[str, Scalar], own: bool) -> None:
        """Take in a trial with a value."""
        point, rank = self._cube.point(params), _rank(observation)
        better = self._best is None or rank > self._best[0]
        if better:
            self._best = rank, point
        offsets = self._distribution.offsets(point) if own and self._awaited <= 0 else None
        if offsets is not None:
            self._generation.append((offsets, observation))
            if len(self._generation) == self._distribution.population:
                self._close()
        elif better:
            self._distribution.move(point)
            self._generation = []  # their offsets are from where it was

    def _close(self) -> None:
        costs = _costs([observed for _, observed in self._generation])
        ended = [(offsets, cost) for (offsets, _), cost in zip(self._generation, costs, strict=True)]
        self._generation = []
        if self._distribution.learn(ended):
            self._distribution = self._begin(AGAIN)

    def _begin(self, share: float = 1.0) -> Distribution:
        """A fresh distribution around the best point seen; before that, around the known starts, or the middle."""
        self._generation = []
        stage = self._stages[self._index]
        if self._best is not None:
            centre = self._best[1]
        else:
            centre = np.mean(self._known, axis=0) if self._known else self._cube.middle
        return Distribution(stage, np.clip(centre, 0.0, 1.0), self._cube.tolerance, share * self._reach * stage.step)


def _rank(observation: Observation) -> tuple[float, float]:
    """Larger is better: one that meets the constraints before any that does not."""
    return -observation.violation, observation.value or 0.0


def _costs(generation: Sequence[Observation]) -> list[float]:
    """Lower is better; whoever is beyond the constraints costs more than any that meets them, the farther the more."""
    plain = [-(observed.value or 0.0) for observed in generation]
    worst = max((cost for cost, o in zip(plain, generation, strict=True) if not o.violation), default=0.0)
    return [worst + o.violation if o.violation else cost for cost, o in zip(plain, generation, strict=True)]
