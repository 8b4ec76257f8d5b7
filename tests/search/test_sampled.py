"""Strategies that are Optuna samplers: what a sampler is shown once there are more trials than it needs."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler
from optuna.trial import FrozenTrial

from search.space import make_space
from search.strategies.choose import make_strategy
from search.strategies.contract import Observation, Proposal
from search.strategies.opening import Opening
from search.strategies.sampled import BEST, Sampled
from tests.search.factories import LAYERS, bowl, make_spec

COUNT, SHOWN = 90, 40
VALUES = [float(value) for value in np.random.default_rng(0).permutation(COUNT)]


class Watching(RandomSampler):
    """Draws at random, and keeps which finished trials it is shown for each proposal."""

    def __init__(self, shown: list[set[int]], seed: int) -> None:
        super().__init__(seed)
        self._shown = shown

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """None; it is asked once a proposal."""
        self._shown.append({t.number for t in study.get_trials(deepcopy=False) if t.state.is_finished()})
        return {}


def shown_after(order: Iterable[int], violations: dict[int, float]) -> set[int]:
    """What a sampler sees once `COUNT` open trials were told in that order."""
    shown: list[set[int]] = []
    strategy = Sampled(make_space(make_spec(), LAYERS), 0, partial(Watching, shown), kept=SHOWN)
    proposals = [strategy.propose(number) for number in range(COUNT)]
    assert shown[-1] == set(), "nothing was told yet"
    for number in order:
        proposal = proposals[number]
        assert isinstance(proposal, Proposal)
        beyond = (violations.get(number, 0.0),)
        seen = Observation(number, "x", proposal.params, proposal.recipe, VALUES[number], constraints=beyond)
        strategy.observe(seen)
    strategy.propose(COUNT)
    return shown[-1]


def test_a_sampler_sees_the_best_and_the_newest_trials_whatever_order_they_were_told_in() -> None:
    best = set(np.argsort(VALUES)[-SHOWN // BEST :].tolist())
    others = [number for number in range(COUNT) if number not in best]
    expected = best | set(others[-SHOWN + len(best) :])
    assert shown_after(range(COUNT), {}) == shown_after(reversed(range(COUNT)), {}) == expected


def test_a_trial_beyond_a_constraint_is_none_of_the_best() -> None:
    oldest_of_best = min(np.argsort(VALUES)[-SHOWN // BEST :].tolist())
    assert oldest_of_best in shown_after(range(COUNT), {})
    assert oldest_of_best not in shown_after(range(COUNT), {oldest_of_best: 0.1})


SPACES: dict[str, dict[str, Any]] = {
    "one method": {"layers": 2},
    "several methods": {"methods": ["task_arithmetic", "ties"], "layers": 2},
    "a method for each group": {"methods": ["task_arithmetic", "ties"], "layers": 2, "choose": "per_group"},
}


@pytest.mark.parametrize("section", SPACES.values(), ids=SPACES)
def test_tpe_that_has_forgotten_trials_goes_on_after_a_restart_as_if_undisturbed(
    section: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    opening = Opening(make_space(make_spec(space=section), LAYERS), 3, ())
    with monkeypatch.context() as patched:
        patched.setattr("search.strategies.sampled.KEPT", SHOWN)
        undisturbed, anew = make_strategy("tpe", opening), make_strategy("tpe", opening)
    told = []
    for number in range(COUNT):
        found = undisturbed.propose(number)
        assert isinstance(found, Proposal) and found.recipe is not None
        value = bowl(found.recipe, {"a": 0.7, "b": 0.2, "c": 0.4})
        told.append(Observation(number, "tpe", found.params, found.recipe, value))
        undisturbed.observe(told[-1])
    remembering = make_strategy("tpe", opening)
    for strategy in (anew, remembering):
        for seen in told:
            strategy.reserve(seen.number, Proposal(seen.params, seen.recipe))
        for seen in reversed(told):
            strategy.observe(seen)
    assert anew.propose(COUNT) == undisturbed.propose(COUNT) != remembering.propose(COUNT)
