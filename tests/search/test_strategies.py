"""Every strategy: it proposes recipes of the space, learns, and goes on after a restart as if undisturbed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from db.store import Store, open_home
from evaluation.result import Failed, Infeasible, Part, Scored
from merging.errors import InvalidStudy
from merging.recipe import Recipe
from search.controller import Search, Told
from search.searchspec import StrategyName
from search.space import make_space
from search.starts.pool import starts
from search.strategies.choose import make_strategy
from search.strategies.contract import Observation, Proposal, Strategy
from search.strategies.opening import Opening
from search.strategies.sampled import Sampled
from search.study import StudySpec
from tests.search.factories import LAYERS, Evaluate, bowl, create, make_spec, run_search, scored

STRATEGIES: tuple[StrategyName, ...] = (
    "random", "qmc", "grid", "tpe", "gp", "cmaes", "nsga2", "nsga3", "arms", "greedy_soup", "evolution", "layer_order",
    "pruned_soup", "ensemble_soup", "carbs", "inclusion"
)  # fmt: skip
BEST = {"a": 0.7, "b": 0.2, "c": 0.4}


class Stopped(Exception):
    """The test's own interruption."""


def by_bowl(recipe: Recipe, part: Part) -> Scored:
    return scored(bowl(recipe, BEST))


def search(spec: StudySpec, store: Store, on_told: Callable[[Told], None] = lambda told: None) -> Search:
    study = store.studies.find(spec.name) or create(store, spec)
    space = make_space(spec, LAYERS)
    begin = starts(space)
    return Search(
        study,
        spec,
        spec.search.parallel,
        space,
        begin,
        make_strategy(spec.search.strategy, Opening(space, 3, begin)),
        on_told,
    )


def run(spec: StudySpec, store: Store, evaluate: Evaluate = by_bowl) -> list[str]:
    """Run to the end; the recipes tried, in order."""
    found = search(spec, store)
    trials = run_search(found, store, evaluate)
    return [store.evaluations.recipe(t.evaluation_id).to_json() if t.evaluation_id else "none" for t in trials]


def run_until(spec: StudySpec, store: Store, count: int) -> None:
    """Run, and break off when `count` trials were told."""

    def stop(told: Told) -> None:
        if told.trial.number + 1 == count:
            raise Stopped

    found = search(spec, store, stop)
    with pytest.raises(Stopped):
        run_search(found, store, by_bowl)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("stop_at", [2, 6, 9])
def test_a_restart_proposes_what_an_undisturbed_run_would_have(
    strategy: StrategyName, stop_at: int, tmp_path: Path
) -> None:
    spec = make_spec(search={"strategy": strategy, "trials": 18}, space={"layers": 2})
    undisturbed = run(spec, open_home(tmp_path / "one"))
    store = open_home(tmp_path / "two")
    if len(undisturbed) > stop_at:
        run_until(spec, store, stop_at)
    assert run(spec, store) == undisturbed


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_failed_or_infeasible_trial_is_no_number_and_does_not_stop_the_search(
    strategy: StrategyName, store: Store
) -> None:
    def shaky(recipe: Recipe, part: Part) -> Scored | Infeasible | Failed:
        weights = recipe.groups[0].weights
        if weights["a"] == 1.0:
            return Failed(why="a fault")
        return Infeasible(why="NaN") if weights["c"] > 0.8 else by_bowl(recipe, part)

    spec = make_spec(search={"strategy": strategy, "trials": 25})
    recipes = run(spec, store, shaky)
    trials = store.trials.all(store.studies.get("test").id)
    assert len(recipes) == 25 if not strategy.endswith("_soup") else len(recipes) >= 4
    assert {t.state for t in trials} >= {"complete", "failed", "infeasible"}
    assert all((t.value is None) == (t.state != "complete") for t in trials)
    assert all(t.why for t in trials if t.value is None)


def test_tpe_and_cmaes_find_better_than_random_and_cmaes_comes_close(tmp_path: Path) -> None:
    best: dict[str, float] = {}
    for strategy in ("random", "tpe", "cmaes"):
        spec = make_spec(search={"strategy": strategy, "trials": 80}, space={"layers": 2})
        store = open_home(tmp_path / strategy)
        run(spec, store)
        values = [t.value for t in store.trials.all(1) if t.value is not None]
        best[strategy] = max(values)
    assert best["tpe"] > best["random"] and best["cmaes"] > best["random"]
    assert best["cmaes"] > -0.02


def test_tpe_samples_jointly_also_where_the_starts_lie_outside_the_space(store: Store) -> None:
    spec = make_spec(search={"strategy": "tpe", "trials": 14}, space={"methods": ["ties"]})
    found = search(spec, store)
    run_search(found, store, by_bowl)
    assert isinstance(found.strategy, Sampled)
    assert set(found.strategy.joint_space()) == {
        "ties.lambda", "ties.density", "ties.weight[a]", "ties.weight[b]", "ties.weight[c]"
    }  # fmt: skip


def test_greedy_soup_follows_the_rule_on_a_hand_worked_case(store: Store) -> None:
    """Singles a .5, b .4, c .3; a+b .6 is kept, a+b+c .55 is not; then 2a+b .65 is kept, nothing after it."""
    table = {"a": 0.5, "b": 0.4, "c": 0.3, "abc": 0.55, "ab": 0.6, "aab": 0.65}

    def look_up(recipe: Recipe, part: Part) -> Scored:
        weights = recipe.groups[0].weights
        smallest = min(w for w in weights.values() if w)
        key = "".join(name * round(w / smallest) for name, w in sorted(weights.items()) if w)
        return scored(table.get(key, 0.1))

    spec = make_spec(search={"strategy": "greedy_soup", "trials": 60})
    run(spec, store, look_up)
    trials = store.trials.all(store.studies.get("test").id)
    best = max(trials, key=lambda t: t.value or 0.0)
    assert best.value == 0.65
    assert store.evaluations.recipe(best.evaluation_id or 0).groups[0].weights == {"a": 2 / 3, "b": 1 / 3, "c": 0.0}
    assert len(trials) < 60, "the search ends when a pass adds nothing"


def test_a_soup_that_was_a_start_is_not_scored_again(store: Store) -> None:
    scored_recipes: list[str] = []

    def count(recipe: Recipe, part: Part) -> Scored:
        scored_recipes.append(recipe.to_json())
        return scored(0.5)  # ties: the first pass keeps every expert, and ends at the uniform soup

    spec = make_spec(search={"strategy": "greedy_soup", "trials": 30}, space={"methods": ["linear"]})
    run(spec, store, count)
    assert len(scored_recipes) == len(set(scored_recipes))


def test_cmaes_refuses_a_space_with_choices() -> None:
    spec = make_spec(search={"strategy": "cmaes"}, space={"methods": ["task_arithmetic", "ties"]})
    space = make_space(spec, LAYERS)
    with pytest.raises(InvalidStudy, match=r"search\.strategy.*cmaes.*tpe"):
        make_strategy("cmaes", Opening(space, 0, starts(space)))
    fixed = make_spec(search={"strategy": "cmaes"}, space={"methods": ["model_stock"]})
    with pytest.raises(InvalidStudy, match="nothing to vary"):
        make_strategy("cmaes", Opening(make_space(fixed, LAYERS), 0, ()))


@pytest.mark.parametrize("strategy", ["random", "tpe"])
def test_conditional_spaces_are_searched_in_every_branch(strategy: StrategyName, store: Store) -> None:
    spec = make_spec(
        search={"strategy": strategy, "trials": 40},
        space={"methods": ["task_arithmetic", "ties", "layer_swap"], "choose": "per_group", "layers": "each"},
    )
    run(spec, store)
    used = {
        group.method
        for t in store.trials.all(store.studies.get("test").id)
        for group in store.evaluations.recipe(t.evaluation_id or 0).groups
    }
    assert used >= {"task_arithmetic", "ties", "layer_swap"}


def observed(strategy: Strategy, count: int, judge: Callable[[Observation], Observation]) -> list[Observation]:
    """Ask for so many trials and tell each at once."""
    told = []
    for number in range(count):
        proposal = strategy.propose(number)
        assert isinstance(proposal, Proposal) and proposal.recipe is not None
        value = bowl(proposal.recipe, BEST)
        told.append(judge(Observation(number, "tpe", proposal.params, proposal.recipe, value)))
        strategy.observe(told[-1])
    return told


def first_weight(observation: Observation) -> float:
    assert observation.params is not None
    return float(observation.params["task_arithmetic.weight[a]"])


@pytest.mark.parametrize("strategy", ["tpe", "cmaes"])
def test_a_sampler_keeps_to_a_constraint_that_forbids_the_best(strategy: StrategyName) -> None:
    """The best has a weight of 0.7; at most 0.3 is allowed."""
    space = make_space(make_spec(), LAYERS)

    def bound(observation: Observation) -> Observation:
        return replace(observation, constraints=(first_weight(observation) - 0.3,))

    free = observed(make_strategy(strategy, Opening(space, 5, ())), 50, lambda observation: observation)
    kept = observed(make_strategy(strategy, Opening(space, 5, ())), 50, bound)
    share = [sum(first_weight(o) <= 0.3 for o in told[-25:]) / 25 for told in (free, kept)]
    assert share[1] > 0.4 > 0.2 > share[0], share


def test_a_pruned_trial_teaches_tpe_its_estimate() -> None:
    space = make_space(make_spec(), LAYERS)
    strategy = make_strategy("tpe", Opening(space, 5, ()))
    told = observed(strategy, 40, lambda o: replace(o, pruned=True))
    late, early = ([o.value or 0.0 for o in part] for part in (told[-10:], told[:10]))
    assert sum(late) / 10 > sum(early) / 10 + 0.1, "from pruned trials alone it learns what is good"


@pytest.mark.parametrize("strategy", ["tpe", "random"])
def test_several_objectives_are_told_as_such(strategy: StrategyName) -> None:
    space = make_space(make_spec(), LAYERS)
    found = make_strategy(strategy, Opening(space, 5, (), objectives=2))
    told = observed(found, 25, lambda o: replace(o, values=(first_weight(o), 1.0 - first_weight(o))))
    assert len({first_weight(o) for o in told}) == 25


def test_a_soup_beyond_the_constraints_is_not_kept() -> None:
    """As the hand-worked case, but everything with b in it is beyond: of a and c, a alone is the best that is not."""
    space = make_space(make_spec(search={"strategy": "greedy_soup"}), LAYERS)
    found = make_strategy("greedy_soup", Opening(space, 0, ()))
    for number, name in enumerate("abc"):
        recipe = space.uniform("linear", {n: float(n == name) for n in "abc"}, {})
        value, beyond = {"a": (0.5, 0.0), "b": (0.9, 0.1), "c": (0.3, 0.0)}[name]
        found.observe(Observation(number, f"expert:{name}", None, recipe, value, constraints=(beyond,)))
    first = found.propose(3)
    assert isinstance(first, Proposal) and first.recipe is not None
    assert first.recipe.groups[0].weights == {"a": 0.5, "b": 0.0, "c": 0.5}, "b is offered last"
