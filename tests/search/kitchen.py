"""Soups without models: a strategy is served by workers that look every answer up, in whatever order."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import lcm
from random import Random
from statistics import fmean
from typing import Any

from evaluation.result import TaskScore
from merging.recipe import Recipe
from search.soups.search import SoupSearch
from search.space import Space, make_space
from search.starts.start import expert_origin
from search.strategies.choose import make_strategy
from search.strategies.contract import Exhausted, Observation, Proposal, Strategy, Wait
from search.strategies.opening import Opening
from tests.search.factories import LAYERS, make_spec

Answers = Mapping[str, Sequence[float]]  # of each task, one a document
Worth = Callable[[str], Answers | None]  # of a soup as `written`; None: it cannot be scored


def pantry(names: str, **sections: Any) -> Space:
    """The space of a study whose experts are these letters."""
    return make_space(
        make_spec(models={"base": "base", "experts": [f"experts/{n}" for n in names]}, **sections), LAYERS
    )


def written(recipe: Recipe) -> str:
    """A soup as its experts, each as often as it counts: `aab`."""
    weights = recipe.groups[0].weights
    parts = {name: Fraction(weight).limit_denominator(1000) for name, weight in sorted(weights.items())}
    total = lcm(*(part.denominator for part in parts.values()))
    return "".join(name * int(part * total) for name, part in parts.items())


def flat(value: float, documents: int = 10) -> Answers:
    """Every document the same."""
    return {"t": [value] * documents}


def rights(right: str) -> Answers:
    """One task; a digit a document."""
    return {"t": [float(digit) for digit in right]}


def scores_of(answers: Answers) -> tuple[TaskScore, ...]:
    """As an evaluation gives them."""
    about: dict[str, Any] = {"metric": "acc", "stderr": None, "higher_is_better": True}
    return tuple(
        TaskScore(task=t, value=fmean(items), documents=tuple(range(len(items))), items=tuple(items), **about)
        for t, items in answers.items()
    )


@dataclass
class Served:
    """What came of it: soups in the order in which they were proposed, and by what label."""

    strategy: Strategy
    soups: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    most_open: int = 0
    rounds: int = 0
    told: list[Observation] = field(default_factory=list)
    ended: bool = False

    @property
    def lines(self) -> tuple[str, ...]:
        """What the strategy says of its decisions."""
        assert isinstance(self.strategy, SoupSearch)
        return self.strategy.explain()

    @property
    def end(self) -> str:
        """The soup that it ended with, as it says."""
        return self.lines[-1].removeprefix("ends with ")


def observation(number: int, origin: str, recipe: Recipe, answers: Answers | None) -> Observation:
    """A trial that ended, its value the mean of its tasks."""
    if answers is None:
        return Observation(number, origin, None, recipe, None)
    scores = scores_of(answers)
    return Observation(number, origin, None, recipe, fmean(s.value for s in scores), scores=lambda: scores)


def serve(
    name: str,
    space: Space,
    worth: Worth,
    workers: int = 1,
    shuffle: int = 0,
    trials: int = 500,
    together: bool = False,
    **options: Any,
) -> Served:
    """Take a strategy to its end.

    Args:
        workers: how many trials are open at a time.
        shuffle: keys which of the open ones ends next.
        trials: as many as the study has.
        together: all that are open end at the same time.
    """
    served = Served(make_strategy(name, Opening(space, 3, trials=trials, options=options)))
    for number, expert in enumerate(space.experts):
        recipe = space.uniform("linear", {n: float(n == expert) for n in space.experts}, {})
        served.strategy.reserve(number, Proposal(None, recipe))
        served.told.append(observation(number, expert_origin(expert), recipe, worth(expert)))
        served.strategy.observe(served.told[-1])
    opened: list[tuple[int, Recipe]] = []
    rng, number = Random(shuffle), len(space.experts)
    while not served.ended:
        while len(opened) < workers and number < trials:
            proposal = served.strategy.propose(number)
            if not isinstance(proposal, Proposal):
                served.ended = isinstance(proposal, Exhausted)
                assert opened or not isinstance(proposal, Wait), "it waits for nothing"
                break
            assert proposal.recipe is not None
            served.soups.append(written(proposal.recipe))
            served.labels.append(proposal.by)
            opened.append((number, proposal.recipe))
            number += 1
        served.most_open = max(served.most_open, len(opened))
        if not opened:
            break
        for _ in range(len(opened) if together else 1):
            number_told, recipe = opened.pop(rng.randrange(len(opened)))
            served.told.append(observation(number_told, name, recipe, worth(written(recipe))))
            served.strategy.observe(served.told[-1])
        served.rounds += 1
    return served


def table(values: Mapping[str, float]) -> Worth:
    """Soups by their values; who is not in it is worth .1."""
    return lambda soup: flat(values.get(soup, 0.1))


def landscape(key: int, documents: int = 40) -> Worth:
    """Some landscape: each document is easy for some soups, whatever they are; experts help and harm."""

    def worth(soup: str) -> Answers:
        return {"t": [float(Random(f"{key}|{soup}|{i // 3}").random() < 0.6) for i in range(documents)]}

    return worth
