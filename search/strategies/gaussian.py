"""Bayesian optimisation with a Gaussian process of our own, of one objective or several.

It knows that a trial stopped early is a guess, takes open trials for what it expects of them, begins at the best known
points, and guesses from the weights which layers matter (`search.gaussian`). Its hyper-parameters are fitted whenever
the trials have grown by a tenth, from scratch and to exactly the trials there were then, so that a replay, which fits
only once, finds the same.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np

from merging.catalog import Scalar
from merging.errors import InvalidStudy
from search.gaussian.climb import Around, promising
from search.gaussian.encoding import Encoding, Place
from search.gaussian.fit import Prior
from search.gaussian.kernel import Floats
from search.gaussian.model import Fitted, Model, fitted
from search.gaussian.observed import Known, chosen, known_of, merit
from search.gaussian.prior import scales
from search.gaussian.region import FIRST, Region
from search.gaussian.variants import drawn, varied
from search.seeds import derive
from search.strategies.contract import Exhausted, Observation, Proposal, Wait
from search.strategies.opening import Opening

FITTED_FROM = 3  # trials with a value that a model needs
GROWTH = 10  # it is fitted anew when there are more trials by one in so many
CENTRES = 6  # known points that are looked around
VARIANTS = 18  # and of those with another choice
LARGE = 6  # dimensions beyond which a step is limited
TRIES = 5  # at a new recipe, where there is no model or all that it says was tried
FAILED = 60  # the most recent trials without a value that are remembered


class Gaussian:
    """The strategy `gp`.

    Raises:
        InvalidStudy: the space leaves nothing to vary.
    """

    def __init__(self, opening: Opening) -> None:
        self._opening, self._encoding = opening, Encoding(opening.space)
        if not self._encoding.columns:
            names = ", ".join(m.name for m in opening.space.methods)
            raise InvalidStudy("space.methods", names, "leaves nothing to vary", "add a method with parameters")
        asked = [d for d, _ in self._encoding.columns]
        profile = opening.profile if opening.options.get("importance", True) else None
        self._prior = Prior(scales(opening.space, asked, self._encoding.size, profile))
        self._region = Region(self._encoding.size)
        self._known: list[Known] = []
        self._failed: list[Place] = []
        self._open: dict[int, Place] = {}
        self._own: set[int] = set()
        self._tried: set[str] = set()
        self._fits: tuple[int, Fitted] | None = None

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """The most promising recipe that was not tried."""
        random = np.random.default_rng(derive(self._opening.seed, number, "gp"))
        places = self._modelled(random) if len(self._known) >= FITTED_FROM else []
        proposal = self._first_new(chain(places, self._unmodelled(random)))
        self.reserve(number, proposal)
        return proposal

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Until it ends the model takes it to come out as expected."""
        if number >= len(self._opening.starts):
            self._own.add(number)
        if proposal.params is not None:
            self._open[number] = self._encoding.place(proposal.params)
            self._tried.add(_name(proposal.params))

    def observe(self, observation: Observation) -> None:
        """Add it to what is known."""
        self._open.pop(observation.number, None)
        if observation.params is None:
            return
        self._tried.add(_name(observation.params))
        place = self._encoding.place(observation.params)
        known = known_of(observation, place, self._opening.objectives)
        if observation.number in self._own:
            self._region.note(known is not None and self._is_better(known))
        if known is not None:
            self._known.append(known)
        elif observation.value is None:
            self._failed = [*self._failed, place][-FAILED:]

    def _modelled(self, random: np.random.Generator) -> list[Place]:
        """The most promising places by the model."""
        known = chosen(self._known, self._prior.scales)
        failed, pending = ([place.vector for place in places] for places in (self._failed, self._open.values()))
        model = Model(self._fit(), known, self._stack(failed), self._stack(pending))
        centres = [known[i].place for i in model.order()[:CENTRES]]
        if any(place.choices for place in centres):
            space, donors = self._opening.space, [known[i] for i in model.order()]
            centres += varied(space, self._encoding, centres, [d.place for d in donors], VARIANTS, random)
        weights = random.dirichlet(np.ones(self._opening.objectives)).tolist()
        around = [Around(place, self._reach(model)) for place in centres]
        return promising(model.terms(weights), around, random)

    def _unmodelled(self, random: np.random.Generator) -> Iterator[Place]:
        """Where too little is known: near the best known point, or a start of the space, else anywhere."""
        inside = [self._encoding.place(s.params) for s in self._opening.starts if s.params is not None]
        if self._known:
            inside = [self._known[int(np.argmax(merit(self._known)))].place]
        for _ in range(TRIES):
            if inside:
                centre = inside[int(random.integers(len(inside)))]
                moved = centre.vector + random.normal(0.0, FIRST / 2.0, len(centre.vector))
                yield replace(centre, vector=np.where(centre.active, np.clip(moved, -0.5, 0.5), centre.vector))
            yield drawn(self._opening.space, self._encoding, random)

    def _first_new(self, places: Iterable[Place]) -> Proposal:
        """The first that makes a recipe and was not tried; if all were, the last."""
        for place in places:
            proposal = self._encoding.proposal(place)
            if proposal.recipe is not None and _name(proposal.params or {}) not in self._tried:
                return proposal
        return proposal

    def _fit(self) -> Fitted:
        """Fitted to as many of the first trials as the schedule says."""
        due = FITTED_FROM
        while (after := due + max(1, due // GROWTH)) <= len(self._known):
            due = after
        if self._fits is None or self._fits[0] != due:
            self._fits = due, fitted(self._prior, chosen(self._known[:due], self._prior.scales))
        return self._fits[1]

    def _reach(self, model: Model) -> Floats:
        """[columns] how far a proposal may lie from a known point: farther where the value changes slowly."""
        if self._encoding.size <= LARGE:
            return np.ones(len(self._encoding.columns))
        found = model.processes[0].kernel.scales
        relative = found / np.exp(np.log(found).mean())
        return np.asarray(self._region.reach * np.clip(relative, 0.5, 2.0))

    def _stack(self, vectors: Sequence[Floats]) -> Floats:
        return np.stack(vectors) if vectors else np.zeros((0, len(self._encoding.columns)))

    def _is_better(self, found: Known) -> bool:
        """Whether it counts (`Known.counts`) and none before that does is as good in every objective."""
        return found.counts and not any(
            k.counts and all(mine <= theirs for mine, theirs in zip(found.values, k.values, strict=True))
            for k in self._known
        )


def _name(params: dict[str, Scalar]) -> str:
    """Points that differ in no digit that counts have one name."""
    return "|".join(f"{k}={v:.6g}" if isinstance(v, float) else f"{k}={v}" for k, v in sorted(params.items()))
