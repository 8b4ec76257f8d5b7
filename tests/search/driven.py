"""Strategies driven without a store: starts first, then proposals, each told at once."""

from collections.abc import Callable, Sequence

from merging.recipe import Recipe
from search.starts.start import Start
from search.strategies.contract import Exhausted, Observation, Proposal, Strategy, Wait
from search.strategies.opening import Opening

Judge = Callable[[Recipe], float | None]


def tell_starts(strategy: Strategy, starts: Sequence[Start], judge: Judge) -> list[Observation]:
    """Every start reserved, then told."""
    for number, start in enumerate(starts):
        strategy.reserve(number, Proposal(start.params, start.recipe))
    told = [Observation(n, s.origin, s.params, s.recipe, judge(s.recipe)) for n, s in enumerate(starts)]
    for observation in told:
        strategy.observe(observation)
    return told


def drive(strategy: Strategy, opening: Opening, judge: Judge) -> list[Observation]:
    """A whole search with one worker, the starts included; a shorter one where the strategy ends by itself."""
    told = tell_starts(strategy, opening.starts, judge)
    for number in range(len(told), opening.trials):
        found = strategy.propose(number)
        assert not isinstance(found, Wait), "one that waits for nothing"
        if isinstance(found, Exhausted):
            break
        value = None if found.recipe is None else judge(found.recipe)
        told.append(Observation(number, f"x:{found.by}", found.params, found.recipe, value))
        strategy.observe(told[-1])
    return told


def replayed(strategy: Strategy, opening: Opening, told: Sequence[Observation]) -> Strategy:
    """A fresh strategy brought to where another is, as the controller does it after a restart."""
    for seen in told:
        proposal = Proposal(seen.params, seen.recipe, by=seen.origin.partition(":")[2])
        strategy.reserve(seen.number, proposal)
    for seen in told:
        strategy.observe(seen)
    return strategy


def best(told: Sequence[Observation]) -> float:
    """The highest value."""
    return max(seen.value for seen in told if seen.value is not None)
