"""What every strategy looks like to the controller.

A strategy decides, the controller acts. Its state is nothing but what it was told: after a restart the
controller replays `reserve` for every trial by number, then `observe` for every finished one in the order they
were told, and the strategy proposes what it would have proposed undisturbed. With one trial open at a time that is
exact; with more, what was open when a trial was proposed is not remembered, and only what was told counts.

A strategy may be part of another. Its own are the trials that it proposed, or that were reserved for it and are no
start; whatever else it observes is somebody's and is as true. It never waits for single trials while others could be
tried: a worker without work is the dearest of all.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from evaluation.result import TaskScore
from merging.catalog import Scalar
from merging.recipe import Recipe


@dataclass(frozen=True)
class Proposal:
    """A recipe to try.

    Attributes:
        params: its point in the search space; None for a recipe outside it.
        recipe: None where the parameters make no recipe; `why` then says so.
        by: which part of the strategy proposes it, for people; empty: the strategy has no parts.
    """

    params: dict[str, Scalar] | None
    recipe: Recipe | None
    why: str | None = None
    by: str = ""


class Wait:
    """Nothing to propose until an open trial is observed."""


@dataclass(frozen=True)
class Exhausted:
    """Nothing is left to propose; `why`, for people, may say what the strategy came to."""

    why: str = ""


@dataclass(frozen=True)
class Observation:
    """A trial that ended.

    Attributes:
        value: the objective, higher is better, of a pruned trial an estimate of it; None for a trial that gave none
            (infeasible, failed). Such a trial is never fed to a sampler as a number.
        pruned: it was stopped before all documents were scored.
        constraints: how far it is beyond each of the study's constraints; 0 or less is met.
        values: one number an objective, where the study has several; higher is better.
        scores: its scores document by document, on the documents of the rung at which it was told;
            read when called. None where it has none.
        seconds: how long it took to build, measure and score it; None where nothing was computed for it.
    """

    number: int
    origin: str
    params: dict[str, Scalar] | None
    recipe: Recipe | None
    value: float | None
    pruned: bool = False
    constraints: tuple[float, ...] = ()
    values: tuple[float, ...] | None = None
    scores: Callable[[], tuple[TaskScore, ...]] | None = field(default=None, compare=False)
    seconds: float | None = None

    @property
    def violation(self) -> float:
        """How far it is beyond the constraints in all; 0 where it meets them."""
        return sum(max(beyond, 0.0) for beyond in self.constraints)


class Strategy(Protocol):
    """A search strategy. Higher values are better."""

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """What trial `number` should try. Random draws are keyed by the study's seed and `number`."""
        ...

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Take note of a trial that `propose` did not just return: a start, or one from before a restart."""
        ...

    def observe(self, observation: Observation) -> None:
        """Take note of a trial that ended."""
        ...
