"""Local search around the front of cost and value: good candidates at every cost, and the dearest ones no oftener.

Methods differ a lot in what a candidate takes: some fit every matrix anew, others add a few tensors. A proposal is a
normal step from a member of the front, chosen by the expected improvement on whatever is known within a budget times
the probability to keep to that budget; the budget is drawn anew for each trial, evenly in its logarithm, between what
the front's ends cost. After CARBS (Fetterman et al., arXiv:2306.08055), with the processes of `search.gaussian`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from merging.errors import InvalidStudy
from search.gaussian.encoding import Encoding, Place
from search.gaussian.fit import Prior
from search.gaussian.kernel import Floats
from search.gaussian.model import Fitted, Model, fitted
from search.gaussian.observed import Known, chosen, known_of
from search.gaussian.prior import scales
from search.gaussian.terms import Improvement
from search.gaussian.variants import varied
from search.seeds import derive
from search.strategies.carbs.costs import CostFit, Costs, fitted_costs, front_of
from search.strategies.contract import Exhausted, Observation, Proposal, Wait
from search.strategies.near import draw_near
from search.strategies.opening import Opening
from search.strategies.tried import name_of

FITTED_FROM = 3  # trials with a value that a model needs
GROWTH = 10  # it is fitted anew when there are more trials by one in so many
CENTRES = 8  # places that are looked around
VARIANTS = 16  # and of those with another choice
LOOKED_AT = 512  # candidates in all
MOVED = 20  # coordinates that a candidate differs in, in the mean; fewer in a smaller space
TRIES = 5  # at a new recipe
FAILED = 60  # the most recent trials without a value that are remembered
_F = TypeVar("_F")


@dataclass(frozen=True)
class Aim:
    """What one proposal is after.

    Attributes:
        centres: what it may be near.
        best: what is to be improved on, as the model counts.
        budget: the logarithm of the seconds that it may take; None: as many as it likes.
    """

    centres: list[Place]
    best: float
    budget: float | None


class Carbs:
    """The strategy `carbs`.

    Args:
        opening: of its options `radius`, at its default if absent.

    Raises:
        InvalidStudy: the space leaves nothing to vary.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening, self._encoding = opening, Encoding(opening.space)
        if not self._encoding.columns:
            names = ", ".join(m.name for m in opening.space.methods)
            raise InvalidStudy("space.methods", names, "leaves nothing to vary", "add a method with parameters")
        self._radius = float(opening.options.get("radius", 0.2))
        asked = [d for d, _ in self._encoding.columns]
        self._prior = Prior(scales(opening.space, asked, self._encoding.size, None))
        self._known: list[Known] = []
        self._seconds: dict[int, float] = {}
        self._failed: list[Place] = []
        self._open: dict[int, Place] = {}
        self._tried: set[str] = set()
        self._fits: tuple[int, Fitted] | None = None
        self._cost_fits: tuple[int, CostFit] | None = None

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """The most promising recipe within the budget that is drawn for this trial."""
        random = np.random.default_rng(derive(self._opening.seed, number, "carbs"))
        places = self._modelled(random) if len(self._known) >= FITTED_FROM else []
        proposal = self._first_new(places) or self._unmodelled(random)
        self.reserve(number, proposal)
        return proposal

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Until it ends the model takes it to come out as expected."""
        if proposal.params is not None:
            self._open[number] = self._encoding.place(proposal.params)
            self._tried.add(name_of(proposal.params))

    def observe(self, observation: Observation) -> None:
        """Add it, and what it cost, to what is known."""
        self._open.pop(observation.number, None)
        if observation.params is None:
            return
        self._tried.add(name_of(observation.params))
        place = self._encoding.place(observation.params)
        known = known_of(observation, place, 1)
        if known is None:
            self._failed = [*self._failed, place][-FAILED:]
            return
        self._known.append(known)
        if observation.seconds is not None and observation.seconds > 0.0:
            self._seconds[observation.number] = observation.seconds

    def _modelled(self, random: np.random.Generator) -> list[Place]:
        """The most promising places, the best first."""
        known = chosen(self._known, self._prior.scales)
        failed, pending = ([p.vector for p in places] for places in (self._failed, self._open.values()))
        model = Model(self._fit(), known, self._stack(failed), self._stack(pending))
        costs = self._costs()
        aim = _aim(model, known, costs, random)
        candidates = self._candidates(aim.centres, [known[i].place for i in model.order()], random)
        points = np.stack([place.vector for place in candidates])
        terms = [replace(t, best=aim.best) if isinstance(t, Improvement) else t for t in model.terms([1.0])]
        marks = np.asarray(sum((term.log(points) for term in terms), np.zeros(len(points))))
        if costs is not None and aim.budget is not None:
            marks = marks + costs.within(aim.budget, points)
        return [candidates[i] for i in np.argsort(-marks, kind="stable")[:TRIES]]

    def _candidates(
        self, centres: Sequence[Place], donors: Sequence[Place], random: np.random.Generator
    ) -> list[Place]:
        """Normal steps from the centres, and from such with other choices."""
        around = list(centres)
        if any(place.choices for place in centres):
            around += varied(self._opening.space, self._encoding, centres, donors, VARIANTS, random)
        count = max(LOOKED_AT // len(around), 4)
        return [place for centre in around for place in _steps(centre, self._radius, count, random)]

    def _unmodelled(self, random: np.random.Generator) -> Proposal:
        """Near the best known point, or a start of the space, else anywhere."""
        best = sorted(self._known, key=lambda k: (not k.meets, -k.values[0], k.number))
        known = [self._encoding.values(k.place) for k in best[:1]]
        known += [s.params for s in self._opening.starts if s.params is not None]
        for _ in range(TRIES):
            proposal = draw_near(self._opening.space, known, random)
            if proposal.params is not None and name_of(proposal.params) not in self._tried:
                break
        return proposal

    def _first_new(self, places: Iterable[Place]) -> Proposal | None:
        """The first that makes a recipe and was not tried; None if there is none."""
        found = (self._encoding.proposal(place) for place in places)
        return next((p for p in found if p.recipe is not None and name_of(p.params or {}) not in self._tried), None)

    def _fit(self) -> Fitted:
        """Of values; to as many of the first trials as the schedule says, so that a replay finds the same."""
        lengths = self._prior.scales
        self._fits = _refitted(
            self._fits, len(self._known), lambda n: fitted(self._prior, chosen(self._known[:n], lengths))
        )
        return self._fits[1]

    def _costs(self) -> Costs | None:
        """What candidates cost; None while the seconds of too few trials are known."""
        costed, lengths = [k for k in self._known if k.number in self._seconds], self._prior.scales
        if len(costed) < FITTED_FROM:
            return None
        self._cost_fits = _refitted(
            self._cost_fits,
            len(costed),
            lambda n: fitted_costs(self._prior, chosen(costed[:n], lengths), self._seconds),
        )
        return Costs(self._cost_fits[1], chosen(costed, lengths), self._seconds)

    def _stack(self, vectors: Sequence[Floats]) -> Floats:
        return np.stack(vectors) if vectors else np.zeros((0, len(self._encoding.columns)))


def _aim(model: Model, known: Sequence[Known], costs: Costs | None, random: np.random.Generator) -> Aim:
    """The front, and a budget between its ends."""
    expected = model.expected[: len(known), 0]
    order = model.order()
    first = [known[i].place for i in order[:CENTRES]]
    sound = np.array([i for i in order if known[i].meets], dtype=np.intp)
    if not len(sound):
        return Aim(first, float(expected.max()), None)
    if costs is None:
        return Aim(first, float(expected[sound].max()), None)
    spent = costs.expected(np.stack([known[i].place.vector for i in sound]))
    front = front_of(spent, expected[sound])
    low, high = (float(spent[front].min()), float(spent[front].max()))
    budget = float(random.uniform(low, high)) if len(front) > 1 else None
    within = sound if budget is None else sound[spent <= budget]
    kept = front if len(front) <= CENTRES else [front[i] for i in _evenly(len(front), CENTRES)]
    centres = [known[sound[i]].place for i in kept]
    return Aim([*centres, *first[: CENTRES - len(centres)]], float(expected[within].max()), budget)


def _steps(centre: Place, radius: float, count: int, random: np.random.Generator) -> list[Place]:
    """Places at normal steps of several lengths, each in a part of the coordinates."""
    columns = np.flatnonzero(centre.active)
    if not len(columns):
        return [centre]
    lengths = radius * 2.0 ** -random.uniform(0.0, 4.0, (count, 1))
    moves = lengths * random.standard_normal((count, len(columns)))
    mask = (
        random.random(moves.shape) < min(MOVED / len(columns), 1.0) * np.where(np.arange(count) % 2, 1.0, 0.25)[:, None]
    )
    mask[np.arange(count), random.integers(len(columns), size=count)] = True
    points = np.tile(centre.vector, (count, 1))
    points[:, columns] = np.clip(points[:, columns] + np.where(mask, moves, 0.0), -0.5, 0.5)
    return [replace(centre, vector=point) for point in points]


def _evenly(count: int, most: int) -> list[int]:
    """So many of the indices below a count, both ends among them."""
    return [int(i) for i in np.linspace(0, count - 1, most).round()]


def _refitted(last: tuple[int, _F] | None, count: int, fit_to: Callable[[int], _F]) -> tuple[int, _F]:
    """The fit that is due at so many trials, and how many of the first it is made of; the last one if that is it."""
    due = FITTED_FROM
    while (after := due + max(1, due // GROWTH)) <= count:
        due = after
    return last if last is not None and last[0] == due else (due, fit_to(due))
