"""Layer inclusion: an expert takes part in a layer range with its one weight, or not at all.

The best recipe so far is changed by adding and removing experts in places, the most promising first by one draw of
what each is worth, and by small steps of the weights. After AutoPEFT (Zhou et al., arXiv:2301.12132), which searches
inclusion bits for adapters; the model of the bits here is linear, since trials are few.
"""

from collections.abc import Iterable

import numpy as np

from merging.errors import InvalidRecipe
from search.seeds import derive
from search.strategies.contract import Exhausted, Observation, Proposal, Wait
from search.strategies.inclusion.effects import Effects, Seen
from search.strategies.inclusion.masked import Bits, Mask, Masked
from search.strategies.opening import Opening
from search.strategies.tried import name_of

CANDIDATES = 64
MOST = 300  # trials that the model is given
BEST = 100  # of which so many are the best, and the rest the most recent
TRIES = 20  # at a new recipe, by ever larger random changes, where all candidates were tried


class Inclusion:
    """The strategy `inclusion`.

    Args:
        opening: of its options `flips` and `step`; absent ones are at their defaults.

    Raises:
        InvalidStudy: the space has a choice, no weights, or weights that may not be 0.
    """

    def __init__(self, opening: Opening) -> None:
        self._space, self._seed = opening.space, opening.seed
        self._masked = Masked(opening.space, "inclusion")
        self._flips = int(opening.options.get("flips", 0)) or max(self._masked.bits // 2, 1)
        self._step = float(opening.options.get("step", 0.1))
        self._normalised = any(method.normalised for method in opening.space.methods)
        self._seen: list[tuple[tuple[float, bool, float, int], Seen]] = []  # the best first
        self._tried: set[str] = set()

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """The best recipe so far, with experts added and removed."""
        random = np.random.default_rng(derive(self._seed, number, "inclusion"))
        best = self._seen[0][1].mask if self._seen else self._masked.plain
        effects = Effects(self._learned(), self._masked.bits, best.values, random)
        candidates = [self._changed(best, effects, random) for _ in range(CANDIDATES)]
        candidates.sort(key=effects.worth, reverse=True)
        proposal = self._first_new(candidates) or self._any(best, effects, random)
        self.reserve(number, proposal)
        return proposal

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Not to be proposed again."""
        if proposal.params is not None:
            self._tried.add(name_of(proposal.params))

    def observe(self, observation: Observation) -> None:
        """Learn from it, if it is a recipe of bits and one weight an expert, and has a value."""
        if observation.params is None:
            return
        self._tried.add(name_of(observation.params))
        mask, exact = self._masked.mask(observation.params)
        if exact and observation.value is not None:
            rank = (observation.violation, observation.pruned, -observation.value, observation.number)
            self._seen.append((rank, Seen(mask, observation.value, observation.pruned)))
            self._seen.sort(key=lambda each: each[0])

    def _learned(self) -> list[Seen]:
        """The best and the most recent, in the order of their numbers."""
        recent = sorted(self._seen[BEST:], key=lambda each: each[0][3])[-(MOST - BEST) :]
        return [seen for _, seen in sorted([*self._seen[:BEST], *recent], key=lambda each: each[0][3])]

    def _changed(self, best: Mask, effects: Effects, random: np.random.Generator) -> Mask:
        """The best with some experts added and removed, those of the most worth by this draw, and weights moved."""
        gains = effects.liking * np.where(best.bits, -1.0, 1.0)
        count = int(np.exp(random.uniform(0.0, np.log(self._flips + 1.0))))
        order = np.argsort(-gains, kind="stable")[:count]
        bits = best.bits.copy()
        bits[order[gains[order] > 0.0]] ^= True
        step = self._step * 2.0 ** -random.uniform(0.0, 3.0) * float(random.random() < 0.5)
        values = np.clip(best.values + step * random.standard_normal(self._masked.handles), 0.0, 1.0)
        return self._sound(bits, values, effects)

    def _any(self, best: Mask, effects: Effects, random: np.random.Generator) -> Proposal:
        """A recipe that was not tried, by random changes; if all were, the last of them."""
        for attempt in range(1, TRIES + 1):
            bits = best.bits ^ (random.random(self._masked.bits) < attempt / (2.0 * TRIES))
            values = np.clip(best.values + self._step * random.standard_normal(self._masked.handles), 0.0, 1.0)
            proposal = self._proposal(self._sound(bits, values, effects))
            if proposal.recipe is not None and name_of(proposal.params or {}) not in self._tried:
                break
        return proposal

    def _sound(self, bits: Bits, values: np.ndarray, effects: Effects) -> Mask:
        """Where weights are normalised, somebody has to take part everywhere."""
        return Mask(self._masked.peopled(bits, effects.liking) if self._normalised else bits, values)

    def _first_new(self, masks: Iterable[Mask]) -> Proposal | None:
        """The first that makes a recipe and was not tried; None if there is none."""
        found = (self._proposal(m) for m in masks)
        return next((p for p in found if p.recipe is not None and name_of(p.params or {}) not in self._tried), None)

    def _proposal(self, mask: Mask) -> Proposal:
        params = self._masked.params(mask)
        try:
            return Proposal(params, self._space.decode(params))
        except InvalidRecipe as error:
            return Proposal(params, None, str(error))
