"""Strategies that are Optuna samplers: `random` and `tpe`.

The study they sample from lives in memory and is rebuilt from our rows: sampling against Optuna's relational
storage costs a transaction a parameter. Each trial gets a sampler of its own, seeded by study seed and trial
number, so that a restart proposes what an undisturbed run would have.
"""

import warnings
from collections.abc import Callable, Container
from functools import partial
from typing import cast

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.search_space import IntersectionSearchSpace
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from merging.catalog import Scalar
from merging.errors import InvalidRecipe
from search.seeds import derive
from search.space import Dimension, Space, dimensions
from search.strategies.contract import Exhausted, Observation, Proposal, Wait
from search.strategies.near import draw_near

CONSTRAINTS = "constraints"  # the attribute in which Optuna and its dashboard look for them
ENOUGH = 10  # points with a value before TPE draws from what it learned
KEPT = 200  # trials that TPE learns from; what a proposal costs is in proportion to them (docs/benchmarks.md)
BEST = 10  # one in so many of them is of the best: Optuna's own share of those that TPE draws like


class Sampled:
    """A strategy around an Optuna sampler.

    Args:
        make: builds the sampler from a seed.
        objectives: how many numbers a trial is judged by.
        starts: trials below this number are starts. While fewer than `ENOUGH` points have a value, trials are drawn
            near the best start, if one lies in the space, and not by the sampler; 0: the sampler draws all.
        kept: how many trials with a value the sampler sees, once there are more: the best and the newest. None: all.
    """

    def __init__(
        self,
        space: Space,
        seed: int,
        make: Callable[[int], BaseSampler],
        objectives: int = 1,
        starts: int = 0,
        kept: int | None = None,
    ) -> None:
        self._space, self._seed, self._make, self._starts = space, seed, make, starts
        self._begun: list[tuple[tuple[float, float], dict[str, Scalar]]] = []  # the starts with values, best first
        self._kept = kept
        self._ranks: dict[int, tuple[float, float]] = {}  # of trials with a value, by Optuna's number; less is better
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = _Thinned()
        directions = [StudyDirection.MAXIMIZE] * objectives
        self._study = optuna.create_study(storage=self._storage, directions=directions, sampler=make(seed))
        self._numbers: dict[int, int] = {}  # ours -> Optuna's, whose study has no gaps

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """Sample every parameter that the walk through the space asks for."""
        if self._begun and len(self._ranks) < ENOUGH:
            rng = np.random.default_rng(derive(self._seed, number))
            near = draw_near(self._space, [params for _, params in self._begun], rng)
            self.reserve(number, near)
            return near
        self._storage.hidden = self._forgotten()
        self._study.sampler = self._make(derive(self._seed, number))
        trial = self._study.ask()
        self._numbers[number] = trial.number
        params: dict[str, Scalar] = {}

        def pick(dimension: Dimension) -> Scalar:
            params[dimension.name] = suggest(trial, dimension)
            return params[dimension.name]

        try:
            return Proposal(params, self._space.walk(pick))
        except InvalidRecipe as error:
            return Proposal(params, None, str(error))

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Add a running trial. One outside the space is left out: it would teach the sampler nothing, and a trial
        without parameters keeps TPE from sampling them jointly.
        """
        if proposal.params is None:
            return
        distributions = point_distributions(self._space, proposal.params)
        frozen = create_trial(state=TrialState.RUNNING, params=proposal.params, distributions=distributions)
        self._study.add_trial(frozen)
        self._numbers[number] = self._study.get_trials(deepcopy=False)[-1].number

    def observe(self, observation: Observation) -> None:
        """Tell Optuna; a trial without a value is told as failed, never as a number.

        A pruned trial is told as complete, with its estimate: TPE would rank all trials of Optuna's state PRUNED
        below the complete ones, by how far they came, and learn nothing from how good they were.
        """
        if observation.number not in self._numbers:
            return
        number = self._numbers[observation.number]
        if observation.value is None:
            self._study.tell(number, state=TrialState.FAIL)
            return
        self._ranks[number] = rank = (observation.violation, -observation.value)
        if observation.number < self._starts and observation.params is not None:
            self._begun.append((rank, observation.params))
            self._begun.sort(key=lambda start: start[0])
        if observation.constraints:  # `Trial.set_constraint` is for trials that this process asked for
            row = self._storage.get_trial_id_from_study_id_trial_number(self._study._study_id, number)
            self._storage.set_trial_system_attr(row, CONSTRAINTS, list(observation.constraints))
        self._study.tell(number, observation.values or observation.value)

    def _forgotten(self) -> frozenset[int]:
        """Optuna's numbers of the trials that the sampler does not see: neither of the best nor of the newest.

        The others' density is what TPE divides by, and is known as well from the newest of them, which lie where it
        draws now.
        """
        if self._kept is None or len(self._ranks) <= self._kept:
            return frozenset()
        others = sorted(self._ranks, key=lambda number: (self._ranks[number], number))[self._kept // BEST :]
        return frozenset(sorted(others)[: len(self._ranks) - self._kept])

    def joint_space(self) -> dict[str, BaseDistribution]:
        """The dimensions that the sampler would draw jointly now."""
        running = self._study.get_trials(deepcopy=False)[-1]
        return self._study.sampler.infer_relative_search_space(self._study, running)


class _Thinned(InMemoryStorage):
    """A storage whose lists of trials leave some out.

    Attributes:
        hidden: numbers of the trials that no list has.
    """

    def __init__(self) -> None:
        super().__init__()
        self.hidden: frozenset[int] = frozenset()

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Those that are not hidden."""
        found = super().get_all_trials(study_id, deepcopy=deepcopy, states=states)
        return [trial for trial in found if trial.number not in self.hidden] if self.hidden else found


def random(space: Space, seed: int, objectives: int = 1) -> Sampled:
    """Independent uniform draws: the honest baseline."""
    return Sampled(space, seed, RandomSampler, objectives)


def tpe(space: Space, seed: int, objectives: int = 1, starts: int = 0) -> Sampled:
    """Optuna's tree-structured Parzen estimator, joint over the parameters that exist together.

    Args:
        starts: trials below this number are starts; it begins near the best of them.
    """
    kept = KEPT if objectives == 1 else None  # of several objectives the best are a front, of any size
    if len(space.methods) > 1:  # only then are some parameters conditional on a choice
        return Sampled(space, seed, _grouped_tpe, objectives, starts, kept)
    joint = partial(_JointTPE, IntersectionSearchSpace(include_pruned=True))
    return Sampled(space, seed, joint, objectives, starts, kept)


def _grouped_tpe(seed: int) -> TPESampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # `group` is still called so
        return TPESampler(seed=seed, n_startup_trials=ENOUGH, multivariate=True, group=True)


class _JointTPE(TPESampler):
    """TPE that remembers which parameters all trials share: a sampler is made for each proposal, and finding that
    out anew took half of its time at 128 parameters and 1,000 trials.
    """

    def __init__(self, shared: IntersectionSearchSpace, seed: int) -> None:
        super().__init__(seed=seed, n_startup_trials=ENOUGH, multivariate=True)
        self._shared = shared

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The parameters that every trial has, but for those with one value."""
        return {name: found for name, found in self._shared.calculate(study).items() if not found.single()}


def suggest(trial: optuna.Trial, dimension: Dimension) -> Scalar:
    """Optuna's value for that dimension."""
    if dimension.kind in ("choice", "bool"):
        choices = dimension.choices or (False, True)
        return cast(Scalar, trial.suggest_categorical(dimension.name, choices))
    if dimension.kind == "int":
        return trial.suggest_int(dimension.name, int(dimension.low), int(dimension.high), log=dimension.log)
    return trial.suggest_float(dimension.name, dimension.low, dimension.high, log=dimension.log)


def distribution(dimension: Dimension) -> BaseDistribution:
    """The dimension as Optuna knows it."""
    if dimension.kind == "choice":
        return CategoricalDistribution(dimension.choices)
    if dimension.kind == "bool":
        return CategoricalDistribution((False, True))
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(dimension.low, dimension.high, log=dimension.log)


def point_distributions(space: Space, params: dict[str, Scalar] | None) -> dict[str, BaseDistribution]:
    """The distributions of the dimensions that a point of the space fills."""
    if params is None:
        return {}
    return {d.name: distribution(d) for d in dimensions(space, lambda d: params[d.name])}
