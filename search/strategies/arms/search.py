"""The strategy `arms`: which method, decided by how each one's own search goes.

Every method of the space is an arm with an optimiser of its own over that method's numbers, begun at the best trial of
the method; `Halving` says whose turn it is.
"""

from collections.abc import Mapping
from dataclasses import replace

from merging.catalog import Method, Scalar
from merging.errors import InvalidStudy
from search.evolution.genome import is_number
from search.seeds import derive
from search.space import dimensions
from search.strategies.arms.halving import Halving
from search.strategies.contract import Exhausted, Observation, Proposal, Strategy, Wait
from search.strategies.evolved import Evolved
from search.strategies.opening import Opening
from search.strategies.sampled import tpe

METHOD = "method"  # the dimension that chooses


class Arms:
    """An arm for each method that has something to vary: CMA-ES where that is numbers, else TPE.

    Args:
        opening: `layers` and `granularity` of its options are those of `cmaes`.

    Attributes:
        policy: whose turn it is.

    Raises:
        InvalidStudy: each group chooses a method of its own, or no method has anything to vary.
    """

    def __init__(self, opening: Opening) -> None:
        space = opening.space
        if space.per_group and len(space.methods) > 1:
            problem = "has no method to choose an arm by"
            raise InvalidStudy("space.choose", "per_group", problem, "use per_study, or search.strategy: tpe")
        varied = [row for row in space.methods if dimensions(replace(space, methods=(row,)))]
        if not varied:
            names = ", ".join(row.name for row in space.methods)
            raise InvalidStudy("space.methods", names, "leaves nothing to vary", "add a method with parameters")
        self._several, self._starts = len(space.methods) > 1, len(opening.starts)
        self._only = space.methods[0].name
        self.policy = Halving([row.name for row in varied], max(opening.trials - self._starts, 0))
        self._parts = {row.name: _part(opening, row, self.policy.longest) for row in varied}
        self._open: dict[int, str] = {}  # the arms of trials that did not end
        self._awaited = self._starts  # starts that were not told

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """The proposal of the arm whose turn it is."""
        open_ = {name: list(self._open.values()).count(name) for name in self._parts}
        name = self.policy.choose(open_)
        if name is None:
            return Exhausted()
        found = self._parts[name].propose(number)
        if not isinstance(found, Proposal):
            return found
        self._open[number] = name
        params = {METHOD: name, **(found.params or {})} if self._several else found.params
        return replace(found, params=params, by=name)

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Take note of a trial of the arm whose method it has."""
        name = self._method(proposal.params)
        if name is None:
            return
        if number >= self._starts:
            self._open[number] = name
        self._parts[name].reserve(number, replace(proposal, params=_without(proposal.params)))

    def observe(self, observation: Observation) -> None:
        """Tell the arm whose method it has; of a start, which all arms begin after, the others that it is over."""
        number = observation.number
        own, name = self._open.pop(number, None), self._method(observation.params)
        for arm, part in self._parts.items():
            if arm == name:
                part.observe(replace(observation, params=_without(observation.params)))
            elif number < self._starts:
                part.observe(replace(observation, params=None, value=None))
        if name is not None:
            value = observation.value
            rank = None if value is None else (-observation.violation, value)
            self.policy.note(name, rank, own=own is not None)
        if number < self._starts:
            self._awaited -= 1
            if not self._awaited:
                self.policy.begin()

    def _method(self, params: Mapping[str, Scalar] | None) -> str | None:
        """The arm that a point of the space belongs to."""
        if params is None:
            return None
        name = str(params[METHOD]) if self._several else self._only
        return name if name in self._parts else None


def _part(opening: Opening, row: Method, trials: int) -> Strategy:
    """A method's own optimiser.

    Args:
        trials: how many it gets if it does well.
    """
    space, seed = replace(opening.space, methods=(row,)), derive(opening.seed, row.name)
    starts = len(opening.starts)
    if not all(map(is_number, dimensions(space))):
        return tpe(space, seed, starts=starts)
    return Evolved(replace(opening, space=space, seed=seed, trials=starts + trials))


def _without(params: Mapping[str, Scalar] | None) -> dict[str, Scalar] | None:
    """The parameters of the method's own space."""
    return None if params is None else {name: value for name, value in params.items() if name != METHOD}
