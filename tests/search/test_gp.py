"""The strategy `gp`: it finds more than others do, and is not led astray by luck, open trials or failures."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest

from evaluation.result import TaskScore
from merging.catalog import Scalar
from merging.errors import InvalidStudy
from search.hypervolume import hypervolume
from search.searchspec import StrategyName
from search.space import Space, dimensions
from search.starts.pool import starts, warm_starts
from search.strategies.choose import make_strategy
from search.strategies.contract import Observation, Proposal, Strategy
from search.strategies.declared import options_of
from search.strategies.opening import Opening
from tests.search.factories import scored, space_of

Params = dict[str, Scalar]
Judge = Callable[[Params], float]
FLAT = {"methods": ["task_arithmetic"]}


def opened(name: StrategyName, space: Space, seed: int = 5, warm: bool = False, objectives: int = 1) -> Strategy:
    begin = warm_starts(space, starts(space), {}, None, 6) if warm else ()
    return make_strategy(name, Opening(space, seed, begin, 60, objectives, options_of(name, {})))


def told(
    strategy: Strategy,
    count: int,
    judge: Callable[[Observation], Observation],
    begun: Sequence[Params] = (),
) -> list[Observation]:
    """Ask for so many trials, the first of which are given, and tell each at once."""
    found = []
    for number in range(count):
        if number < len(begun):
            proposal = Proposal(dict(begun[number]), None)
            strategy.reserve(number, proposal)
        else:
            asked = strategy.propose(number)
            assert isinstance(asked, Proposal)
            proposal = asked
        observation = judge(Observation(number, "gp", proposal.params, proposal.recipe, None))
        strategy.observe(observation)
        found.append(observation)
    return found


def by(judge: Judge) -> Callable[[Observation], Observation]:
    return lambda o: replace(o, value=None if o.params is None else judge(o.params))


def bowl_of(space: Space, seed: int) -> Judge:
    """Minus a weighted mean distance from a good place near small weights."""
    draw, names = np.random.default_rng(seed), [d.name for d in dimensions(space)]
    weights, best = np.exp(draw.normal(0.0, 1.0, len(names))), np.clip(draw.normal(0.3, 0.2, len(names)), 0.0, 1.0)

    def judge(params: Params) -> float:
        return -float(np.average((np.array([float(params[n]) for n in names]) - best) ** 2, weights=weights) ** 0.5)

    return judge


def weight(params: Params | None, name: str = "a") -> float:
    assert params is not None
    return float(params[f"task_arithmetic.weight[{name}]"])


def at(value: float) -> Params:
    return {f"task_arithmetic.weight[{name}]": value for name in "abc"}


def test_it_beats_random_and_tpe_on_sixteen_numbers_from_warm_starts() -> None:
    space = space_of(
        models={"experts": ["experts/a", "experts/b", "experts/c", "experts/d"]}, space={"layers": "each", **FLAT}
    )
    assert len(dimensions(space)) == 16
    best: dict[str, list[float]] = {"random": [], "tpe": [], "gp": []}
    for name in ("random", "tpe", "gp"):
        for seed in range(3):
            begun = [s.params for s in warm_starts(space, starts(space), {}, None, 6) if s.params is not None]
            seen = told(opened(name, space, seed), 60, by(bowl_of(space, seed)), begun)
            best[name].append(max(o.value for o in seen if o.value is not None))
    assert all(gp > max(others) for gp, *others in zip(best["gp"], best["random"], best["tpe"], strict=True)), best
    assert fmean(best["gp"]) > 0.6 * fmean(best["tpe"])


def lucky(pruned: bool) -> list[float]:
    """Where the next trials go after a bowl around .3 and a value far better than all at 1."""
    space, score = space_of(), scored(1.0).scores[0]

    def documents(count: int) -> Callable[[], tuple[TaskScore, ...]]:
        return lambda: (score.model_copy(update={"documents": tuple(range(count))}),)

    def judge(o: Observation) -> Observation:
        if o.number == 7:
            return replace(o, value=0.3, pruned=pruned, scores=documents(8 if pruned else 400))
        return replace(o, value=-abs(weight(o.params) - 0.3), scores=documents(400))

    begun = [at(value) for value in (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.95, 1.0)]
    return [weight(o.params) for o in told(opened("gp", space), 13, judge, begun)[8:]]


def test_luck_on_few_documents_does_not_lead_it_astray() -> None:
    astray, sober = (sum(value > 0.6 for value in lucky(pruned)) for pruned in (False, True))
    assert astray >= 3 > sober, "the same value on all documents is followed, on eight of 400 it is not"


def test_open_trials_are_not_proposed_again() -> None:
    strategy = opened("gp", space_of())
    judge = by(lambda params: -sum((float(v) - 0.3) ** 2 for v in params.values()))
    told(strategy, 8, judge, [at(value) for value in (0.0, 0.2, 0.5, 1.0)])
    proposals = [strategy.propose(number) for number in range(8, 13)]
    points = np.array(
        [[float(v) for v in p.params.values()] for p in proposals if isinstance(p, Proposal) and p.params]
    )
    apart = np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(5, 1)]
    assert len(points) == 5 and apart.min() > 0.01


def test_with_nothing_observed_it_proposes_something_all_the_same() -> None:
    for warm in (False, True):
        proposals = [opened("gp", space_of(), warm=warm).propose(number) for number in range(3)]
        assert len({p.recipe.to_json() for p in proposals if isinstance(p, Proposal) and p.recipe}) == 3


def test_it_keeps_to_a_constraint_that_forbids_the_best() -> None:
    def judge(o: Observation) -> Observation:
        return replace(o, value=-abs(weight(o.params) - 0.7), constraints=(weight(o.params) - 0.3,))

    begun = [at(value) for value in (0.0, 0.2, 0.5, 1.0)]
    late = [weight(o.params) for o in told(opened("gp", space_of()), 20, judge, begun)[8:]]
    assert sum(value <= 0.3 for value in late) >= 6 and max(v for v in late if v <= 0.3) > 0.25


def test_where_all_trials_break_a_constraint_it_looks_for_one_that_does_not() -> None:
    def judge(o: Observation) -> Observation:
        return replace(o, value=weight(o.params), constraints=(weight(o.params) - 0.2,))

    seen = told(opened("gp", space_of()), 12, judge, [at(value) for value in (0.4, 0.6, 0.8, 1.0)])
    assert any(weight(o.params) <= 0.2 for o in seen[4:])


def test_it_learns_where_trials_fail_and_comes_close_to_there() -> None:
    """The best would lie where everything fails."""
    begun = [at(value) for value in (0.0, 0.2, 0.4, 0.6, 1.0)]
    seen = told(
        opened("gp", space_of()),
        25,
        lambda o: replace(o, value=weight(o.params) if weight(o.params) <= 0.5 else None),
        begun,
    )
    sound = [o.value for o in seen[5:] if o.value is not None]
    assert len(sound) >= 3 and max(sound) > 0.45


def test_trials_that_no_constraint_was_asked_of_are_no_obstacle() -> None:
    """A trial that its proxy stopped."""

    def judge(o: Observation) -> Observation:
        found = replace(o, value=-abs(weight(o.params) - 0.7), constraints=(weight(o.params) - 0.3,))
        return replace(found, pruned=True, constraints=()) if o.number % 3 < 2 else found

    seen = told(opened("gp", space_of()), 20, judge, [at(value) for value in (0.0, 0.2, 0.5, 1.0)])
    assert sum(weight(o.params) <= 0.31 for o in seen[10:]) >= 5


def test_it_finds_the_better_method_of_each_group_and_its_numbers() -> None:
    space = space_of(space={"methods": ["task_arithmetic", "ties", "layer_swap"], "choose": "per_group", "layers": 2})

    def judge(params: Params) -> float:
        """Ties is good in the first layers, arithmetic of small weights in the last."""
        methods = [value for name, value in sorted(params.items()) if name.startswith("method")]
        good = [m == wanted for m, wanted in zip(methods, ("ties", "task_arithmetic"), strict=True)]
        numbers = [float(v) for n, v in params.items() if "task_arithmetic.weight" in n and "layers2-3" in n]
        return sum(good) - (fmean(abs(v - 0.2) for v in numbers) if numbers else 0.5)

    seen = told(opened("gp", space, warm=True), 40, by(judge))
    assert max(o.value for o in seen if o.value is not None) > 1.9


@pytest.mark.parametrize("space", [{"methods": ["layer_swap"], "layers": 2}, {"methods": ["layer_swap"], "layers": 1}])
def test_a_space_of_choices_alone_is_searched_without_repetition_until_it_is_used_up(space: dict[str, object]) -> None:
    found = space_of(space={**space, "choose": "per_group"})
    seen = told(opened("gp", found), 8, by(lambda params: sum(v == "b" for v in params.values())))
    recipes = [o.recipe.to_json() for o in seen if o.recipe is not None]
    assert len(recipes) == 8 and len(set(recipes)) >= (8 if space["layers"] == 2 else 3)


def test_a_space_with_nothing_to_vary_is_refused() -> None:
    with pytest.raises(InvalidStudy, match="nothing to vary"):
        opened("gp", space_of(space={"methods": ["model_stock"]}))


def front_of(name: StrategyName, objectives: int, seed: int) -> float:
    """The hypervolume after 30 trials of a toy in which each objective has a best weight of its own."""
    space = space_of(space={"layers": 2, **FLAT})
    names = [d.name for d in dimensions(space)]
    goals = np.random.default_rng(1).uniform(0.1, 0.5, (objectives, len(names)))

    def judge(o: Observation) -> Observation:
        assert o.params is not None
        away = np.array([float(o.params[n]) for n in names]) - goals
        values = tuple((1.0 - 4.0 * (away**2).mean(axis=1)).tolist())
        return replace(o, value=fmean(values), values=values)

    seen = told(opened(name, space, seed, objectives=objectives), 30, judge)
    return hypervolume(np.array([o.values for o in seen]), np.zeros(objectives))


@pytest.mark.parametrize("objectives", [2, 3])
def test_of_several_objectives_it_finds_more_of_the_front_than_chance(objectives: int) -> None:
    for seed in (5, 6):
        assert front_of("gp", objectives, seed) > front_of("random", objectives, seed) + 0.05


def test_more_objectives_than_a_hypervolume_is_found_of_are_weighed_at_random() -> None:
    assert front_of("gp", 5, 5) > front_of("random", 5, 5)


def test_a_trial_of_several_objectives_without_values_is_left_out() -> None:
    strategy = opened("gp", space_of(), objectives=2)
    seen = told(strategy, 10, lambda o: replace(o, value=0.5, values=None if o.number % 2 else (weight(o.params), 0.1)))
    assert len({str(o.params) for o in seen}) == 10
