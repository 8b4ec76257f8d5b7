"""The strategy `inclusion`: points of bits and one weight an expert, which it learns to set."""

from collections import defaultdict
from statistics import fmean

import numpy as np
import pytest

from merging.errors import InvalidStudy
from merging.recipe import Recipe
from search.space import Space
from search.starts.pool import starts
from search.strategies.choose import make_strategy
from search.strategies.contract import Observation, Proposal
from search.strategies.inclusion.masked import Mask, Masked
from search.strategies.opening import Opening
from tests.search.driven import best, drive, replayed
from tests.search.factories import space_of

WEIGHTS = {"a": 0.6, "b": 0.4, "c": 0.3}


def layered(method: str = "task_arithmetic", **space: object) -> Space:
    return space_of(space={"methods": [method], "layers": "each", **space})


def planted(seed: int) -> dict[tuple[int, str], bool]:
    """Who should take part in each of the four layers."""
    random = np.random.default_rng(seed)
    return {(layer, name): bool(random.random() < 0.5) for layer in range(4) for name in WEIGHTS}


def judge_of(bits: dict[tuple[int, str], bool]):  # type: ignore[no-untyped-def]
    """Minus the mean distance from the planted weights, layer by layer."""

    def judge(recipe: Recipe) -> float:
        distances = [
            abs(group.weights.get(name, 0.0) - weight * bits[layer, name])
            for group in recipe.groups
            for layer in range(*group.layers)
            for name, weight in WEIGHTS.items()
        ]
        return -fmean(distances)

    return judge


def opening_of(space: Space, seed: int, trials: int = 60) -> Opening:
    return Opening(space, seed, starts(space), trials)


def weights_of(recipe: Recipe) -> dict[str, set[float]]:
    found = defaultdict(set)
    for group in recipe.groups:
        for name, weight in group.weights.items():
            found[name].add(weight)
    return found


def test_an_expert_has_one_weight_or_none_and_both_happen() -> None:
    opening = opening_of(layered(), 0)
    told = drive(make_strategy("inclusion", opening), opening, judge_of(planted(0)))[len(opening.starts) :]
    assert all(len(each - {0.0}) <= 1 for seen in told if seen.recipe for each in weights_of(seen.recipe).values())
    mixed = [seen for seen in told if seen.recipe and any(len(w) == 2 for w in weights_of(seen.recipe).values())]
    assert len(mixed) > 40
    assert len({seen.recipe.to_json() for seen in told if seen.recipe}) == len(told), "none is tried twice"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_finds_planted_bits_where_random_draws_do_not(seed: int) -> None:
    space, judge = layered(), judge_of(planted(seed))
    found = {}
    for name in ("random", "inclusion"):
        opening = opening_of(space, seed)
        told = drive(make_strategy(name, opening), opening, judge)
        found[name] = best(told)
        top = max(told, key=lambda seen: seen.value or -9.0)
    assert found["inclusion"] > -0.08 > found["random"], found
    assert top.recipe is not None
    wrong = sum(
        (group.weights[name] > 0.0) != planted(seed)[group.layers[0], name]
        for group in top.recipe.groups
        for name in WEIGHTS
    )
    assert wrong <= 1, "of twelve"


def test_where_weights_are_normalised_somebody_takes_part_everywhere() -> None:
    opening = opening_of(layered("linear"), 3, 40)
    told = drive(make_strategy("inclusion", opening), opening, lambda recipe: -sum(recipe.groups[0].weights.values()))
    assert all(seen.recipe is not None for seen in told), "though nobody is the best by this objective"
    assert all(any(group.weights.values()) for seen in told if seen.recipe for group in seen.recipe.groups)


def test_parameters_beside_weights_are_shared_by_all_layers() -> None:
    opening = opening_of(layered("ties"), 1, 24)
    told = drive(make_strategy("inclusion", opening), opening, judge_of(planted(1)))[len(opening.starts) :]
    for seen in told:
        assert seen.recipe is not None
        assert len({str(group.parameters) for group in seen.recipe.groups}) == 1
    assert len({str(seen.recipe.groups[0].parameters) for seen in told if seen.recipe}) > 3


def test_masks_and_points_are_the_same_thing() -> None:
    masked = Masked(layered(), "inclusion")
    assert (masked.bits, masked.handles) == (12, 3)
    random = np.random.default_rng(0)
    for _ in range(20):
        mask = Mask(random.random(12) < 0.5, random.random(3) * 0.9 + 0.1)
        params = masked.params(mask)
        again, exact = masked.mask(params)
        assert exact and (again.bits == mask.bits).all() and masked.params(again) == pytest.approx(params)
    even = masked.params(Mask(np.ones(12, dtype=np.bool_), np.full(3, 0.5)))
    assert not masked.mask(even | {next(iter(even)): 0.1})[1], "two weights of one expert"
    nobody, _ = masked.mask(dict.fromkeys(params, 0.0))
    assert not nobody.bits.any()
    assert masked.peopled(nobody.bits, np.arange(12.0)).sum() == 4, "one in each layer"


def test_a_replay_and_failures_change_nothing() -> None:
    opening = opening_of(layered(), 7, 25)

    def judge(recipe: Recipe) -> float | None:
        return None if recipe.groups[0].weights["a"] == 0.0 else judge_of(planted(7))(recipe)

    strategy = make_strategy("inclusion", opening)
    told = drive(strategy, opening, judge)
    assert any(seen.value is None for seen in told[len(opening.starts) :])
    twin = replayed(make_strategy("inclusion", opening), opening, told)
    assert strategy.propose(25) == twin.propose(25)


def test_a_recipe_that_breaks_a_constraint_is_not_what_it_goes_on_from() -> None:
    space = layered()
    strategy, masked = make_strategy("inclusion", Opening(space, 2, ())), Masked(space, "inclusion")
    bits = np.ones(12, dtype=np.bool_)
    for number, (level, value, beyond) in enumerate([(0.9, 1.0, 0.5), (0.2, 0.1, 0.0)]):
        params = masked.params(Mask(bits, np.full(3, level)))
        strategy.observe(Observation(number, "x", params, None, value, constraints=(beyond,)))
    found = [strategy.propose(number) for number in range(2, 8)]
    high = space.decode(masked.params(Mask(bits, np.full(3, 0.5)))).groups[0].weights["a"]
    for proposal in found:
        assert isinstance(proposal, Proposal) and proposal.recipe is not None
        assert max(w for g in proposal.recipe.groups for w in g.weights.values()) < high


@pytest.mark.parametrize(
    ("space", "said"),
    [
        (
            {"methods": ["task_arithmetic"], "bounds": {"task_arithmetic.weight": [0.1, 1.0]}},
            r"bounds.*does not hold 0",
        ),
        ({"methods": ["task_arithmetic", "ties"]}, "cannot vary choices"),
        ({"methods": ["model_stock"]}, "nothing to vary"),
    ],
)
def test_spaces_in_which_nobody_can_be_left_out_are_refused(space: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidStudy, match=said):
        make_strategy("inclusion", Opening(space_of(space=space), 0, ()))
