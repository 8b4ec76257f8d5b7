"""The strategy `carbs`: seconds reach it and survive a restart, and it looks for what is good for them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from db.store import Store, open_home
from evaluation.result import Scored
from evaluation.wanted import Wanted
from merging.catalog import Scalar
from merging.errors import InvalidStudy
from merging.recipe import Recipe
from search.controller import Controller, Search
from search.dispatch import InlineDispatcher
from search.opening import open_search
from search.space import make_space
from search.starts.pool import starts
from search.strategies.carbs.costs import front_of
from search.strategies.choose import make_strategy
from search.strategies.contract import Exhausted, Observation, Proposal, Strategy, Wait
from search.strategies.declared import options_of
from search.strategies.opening import Opening
from tests.search.driven import replayed
from tests.search.factories import LAYERS, answers, bowl, create_race, leading, make_spec, scored, space_of

BEST = {"a": 0.7, "b": 0.2, "c": 0.4}
DEAR = 100.0  # times as many seconds as of the other method


def opened(seed: int, trials: int = 40, name: str = "carbs") -> tuple[Strategy, Opening]:
    """Two methods, one of which is dear."""
    space = space_of(space={"methods": ["task_arithmetic", "ties"]})
    opening = Opening(space, seed, starts(space), trials, options=options_of(name, {}))
    return make_strategy(name, opening), opening


def seconds_of(recipe: Recipe) -> float:
    return DEAR if recipe.groups[0].method == "ties" else 1.0


def judged(proposal: Proposal, number: int) -> Observation:
    """The dear method is a little better at its best."""
    recipe = proposal.recipe
    assert recipe is not None
    value = bowl(recipe, BEST) + (0.02 if recipe.groups[0].method == "ties" else 0.0)
    return Observation(number, "x", proposal.params, recipe, value, seconds=seconds_of(recipe))


def searched(strategy: Strategy, opening: Opening) -> list[Observation]:
    """A whole search with one worker."""
    begun = [Proposal(start.params, start.recipe) for start in opening.starts]
    for number, start in enumerate(begun):
        strategy.reserve(number, start)
    told = [judged(start, number) for number, start in enumerate(begun)]
    for seen in told:
        strategy.observe(seen)
    for number in range(len(told), opening.trials):
        proposal = strategy.propose(number)
        assert isinstance(proposal, Proposal)
        told.append(judged(proposal, number))
        strategy.observe(told[-1])
    return told


def own(told: Sequence[Observation], opening: Opening) -> list[Observation]:
    return list(told[len(opening.starts) :])


def test_the_front_is_found_by_hand_and_small_differences_of_cost_do_not_count() -> None:
    costs = np.log([1.0, 1.1, 2.0, 2.0, 5.0, 9.0])
    values = np.array([0.5, 0.6, 0.55, 0.7, 0.65, 0.8])
    assert front_of(costs, values) == [1, 3, 5], "1.1 seconds are no more than 1 to speak of, and worth more"
    assert front_of(np.zeros(3), np.array([0.1, 0.3, 0.2])) == [1]


def test_it_spends_less_than_one_that_does_not_know_of_cost_and_finds_the_best_at_either_cost() -> None:
    spent: dict[str, float] = {}
    for name in ("gp", "carbs"):
        spent[name] = 0.0
        for seed in range(2):
            strategy, opening = opened(seed, name=name)
            told = searched(strategy, opening)
            spent[name] += sum(seen.seconds or 0.0 for seen in own(told, opening))
            if name == "carbs":
                best = {cost: max(s.value or 0.0 for s in told if s.seconds == cost) for cost in (1.0, DEAR)}
                assert best[1.0] > -0.01 and best[DEAR] > best[1.0], best
    assert spent["carbs"] < 0.8 * spent["gp"], spent


def test_where_no_cost_is_known_it_goes_by_values() -> None:
    strategy, opening = opened(1)
    told = [replace(seen, seconds=None) for seen in searched(*opened(1))[: len(opening.starts)]]
    replayed(strategy, opening, told)
    values = []
    for number in range(len(told), 30):
        proposal = strategy.propose(number)
        assert isinstance(proposal, Proposal)
        seen = replace(judged(proposal, number), seconds=None)
        strategy.observe(seen)
        values.append(seen.value or 0.0)
    assert max(values) > max(seen.value or -9.0 for seen in told) + 0.05


def test_a_replay_proposes_the_same_with_the_same_seconds_and_other_with_others() -> None:
    strategy, opening = opened(4, 30)
    told = searched(strategy, opening)
    twin = replayed(make_strategy("carbs", opening), opening, told)
    others = [replace(seen, seconds=(1.0 + DEAR) - (seen.seconds or 0.0)) for seen in told]
    other = replayed(make_strategy("carbs", opening), opening, others)
    first, second, third = (s.propose(30) for s in (strategy, twin, other))
    assert first == second != third


def test_a_stopped_trial_does_not_count_as_cheap() -> None:
    """Stopped trials cost a tenth for that alone: what they are expected to cost in full is as much as the others."""
    from search.gaussian.encoding import Encoding
    from search.gaussian.fit import Prior
    from search.gaussian.observed import known_of
    from search.strategies.carbs.costs import Costs, fitted_costs

    space = space_of()
    encoding, random, score = Encoding(space), np.random.default_rng(0), scored(1.0).scores[0]
    known, seconds = [], {}
    for number in range(30):
        params: dict[str, Scalar] = {name: float(random.random()) for name in (d.name for d, _ in encoding.columns)}
        stopped = number % 2 == 0
        documents = tuple(range(10 if stopped else 100))
        observation = Observation(
            number, "x", params, None, 0.5, stopped,
            scores=lambda documents=documents: (score.model_copy(update={"documents": documents}),),  # type: ignore[misc]
        )  # fmt: skip
        found = known_of(observation, encoding.place(params), 1)
        assert found is not None
        known.append(found)
        seconds[number] = 1.0 if stopped else 10.0
    prior = Prior(np.full(3, 1.0))
    costs = Costs(fitted_costs(prior, known, seconds), known, seconds)
    expected = costs.expected(np.stack([k.place.vector for k in known]))
    assert np.abs(expected - np.log(10.0)).max() < 0.2
    points = known[0].place.vector[None]
    assert costs.within(np.log(5.0), points)[0] < np.log(0.1) < np.log(0.9) < costs.within(np.log(20.0), points)[0]


class Noted:
    """A strategy that notes what it observes."""

    def __init__(self, inner: Strategy) -> None:
        self.inner, self.seen = inner, cast(list[Observation], [])

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        return self.inner.propose(number)

    def reserve(self, number: int, proposal: Proposal) -> None:
        self.inner.reserve(number, proposal)

    def observe(self, observation: Observation) -> None:
        self.seen.append(observation)
        self.inner.observe(observation)


def test_seconds_of_all_rungs_are_told_and_are_the_same_after_a_restart(tmp_path: Path) -> None:
    spec = make_spec(search={"strategy": "carbs", "trials": 20, "prune": "halving"})
    store, space = open_home(tmp_path), make_space(make_spec(), LAYERS)
    study = create_race(store, spec)

    def slow(recipe: Recipe, wanted: Wanted) -> Scored:
        outcome = answers(lambda recipe: max(0.0, 0.9 + 0.8 * bowl(recipe, BEST)))(recipe, wanted)
        assert isinstance(outcome, Scored)
        computed = sum(map(len, wanted.documents.values())) - wanted.reused
        return outcome.model_copy(update={"build_seconds": 2.0, "score_seconds": computed / 100})

    def controlled(store: Store) -> tuple[Controller, Noted, InlineDispatcher]:
        begin, strategy = open_search(spec, space)
        noted, dispatcher = Noted(strategy), InlineDispatcher(store, slow)
        found = Search(study, spec, 1, space, begin, noted, lambda told: None)
        return Controller(found, leading(store, study.id), store, dispatcher.announce), noted, dispatcher

    controller, noted, dispatcher = controlled(store)
    while not controller.step():
        dispatcher.wait(0)
    sizes = store.studies.documents(study.id)["t", "search"].sizes
    trials = {t.number: t for t in store.trials.all(study.id)}
    assert len({t.rung for t in trials.values()}) > 1
    for seen in noted.seen:
        trial = trials[seen.number]
        first = 0 if trial.steps else trial.rung  # baselines begin at the last rung
        expected = 2.0 * (trial.rung - first + 1) + sizes[trial.rung] / 100
        assert seen.seconds == pytest.approx(expected), trial
    _, again, _ = controlled(store)
    assert again.seen == noted.seen


def test_a_space_with_nothing_to_vary_is_refused() -> None:
    space = space_of(space={"methods": ["model_stock"]})
    with pytest.raises(InvalidStudy, match="nothing to vary"):
        make_strategy("carbs", Opening(space, 0, ()))
