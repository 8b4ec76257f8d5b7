"""Arms: the rule on cases worked by hand, and whole searches over several methods."""

from collections.abc import Sequence
from typing import Any

import pytest

from merging.errors import InvalidStudy
from merging.recipe import Recipe
from search.space import Space, make_space
from search.starts.pool import starts
from search.strategies.arms.halving import Halving
from search.strategies.arms.search import Arms
from search.strategies.contract import Exhausted, Observation, Proposal
from search.strategies.opening import Opening
from tests.search.driven import Judge, best, drive, replayed
from tests.search.factories import LAYERS, bowl, make_spec

BEST = {"a": 0.7, "b": 0.2, "c": 0.4}
FOUR = ["task_arithmetic", "ties", "dare", "breadcrumbs"]


def took(policy: Halving, arm: str, values: Sequence[float | None], beyond: float = 0.0) -> None:
    """So many trials of an arm ended with these values."""
    for value in values:
        policy.note(arm, None if value is None else (-beyond, value), own=True)


def known(policy: Halving, **values: float) -> None:
    """The best start of each arm."""
    for arm, value in values.items():
        policy.note(arm, (0.0, value), own=False)


def test_the_better_half_goes_on_after_every_round_and_the_last_gets_the_rest() -> None:
    policy = Halving(["a", "b", "c", "d"], 36)  # two halvings: rounds of twelve, three for each of four arms
    for arm, value in (("a", 0.1), ("b", 0.2), ("c", 0.3)):
        took(policy, arm, [value] * 3)
    took(policy, "d", [0.4] * 2)
    assert policy.alive == ["a", "b", "c", "d"] and policy.choose({}) == "d", "it has had the fewest"
    took(policy, "d", [0.4])
    assert policy.alive == ["c", "d"]
    took(policy, "c", [0.3] * 6)
    took(policy, "d", [0.4] * 6)
    assert policy.alive == ["d"]
    took(policy, "d", [0.4] * 12)
    assert policy.choose({}) == "d"


def test_an_arm_that_is_never_left_behind_gets_its_share_of_each_round() -> None:
    assert Halving(["a", "b", "c", "d"], 36).longest == 3 + 6 + 12
    assert Halving(["a"], 36).longest == 36


def test_turns_go_to_whoever_has_the_fewest_open_ones_counted_then_to_the_most_promising() -> None:
    policy = Halving(["a", "b", "c"], 90)
    known(policy, a=0.1, b=0.3, c=0.2)
    assert policy.choose({}) == "b"
    assert policy.choose({"b": 1}) == "c"
    assert policy.choose({"b": 1, "c": 1}) == "a"
    took(policy, "a", [0.1])
    assert policy.choose({}) == "b"


def test_what_an_arm_gained_last_counts_once_more() -> None:
    policy = Halving(["a", "b"], 12)  # one halving: a round of six
    known(policy, a=0.5, b=0.2)
    took(policy, "a", [0.5, 0.5, 0.5])
    took(policy, "b", [0.3, 0.35, 0.4])  # worth 0.4 + 0.2
    assert policy.alive == ["b"]


def test_a_start_is_nothing_an_arm_gained() -> None:
    policy = Halving(["a", "b"], 12)
    policy.note("b", (0.0, 0.1), own=False)
    known(policy, a=0.5, b=0.45)
    took(policy, "a", [0.5] * 3)
    took(policy, "b", [0.4] * 3)
    assert policy.alive == ["a"]


def test_an_arm_that_gained_faster_and_can_overtake_comes_back_for_a_block() -> None:
    policy = Halving(["a", "b"], 80)  # a round of forty, then blocks of ten
    known(policy, a=0.5, b=0.0)
    took(policy, "a", [0.5] * 20)
    took(policy, "b", [0.1] * 19 + [0.2])  # 0.01 a trial, worth 0.4
    assert policy.alive == ["a"]
    took(policy, "a", [0.5] * 10)
    assert policy.alive == ["a"], "half its pace over the thirty trials left reaches 0.35 only"
    policy = Halving(["a", "b"], 800)  # a round of forty: no arm gets more than twenty in one
    known(policy, a=0.5, b=0.0)
    took(policy, "a", [0.5] * 20)
    took(policy, "b", [0.1] * 19 + [0.2])
    took(policy, "a", [0.5] * 20)
    assert policy.alive == ["a", "b"], "over 740 trials it may overtake"
    took(policy, "a", [0.5] * 10)
    took(policy, "b", [0.2] * 10)
    assert policy.alive == ["a"], "it gained nothing more"
    took(policy, "a", [0.5] * 20)
    assert policy.alive == ["a"], "and has no pace left to come back by"


def test_what_is_known_before_the_first_trial_is_the_first_round() -> None:
    policy = Halving(["a", "b", "c", "d", "e"], 40)
    known(policy, a=0.5, b=0.9, c=0.8, d=0.7)
    policy.begin()
    assert policy.alive == ["b", "c", "d"]
    two = Halving(["a", "b"], 40)
    known(two, a=0.9)
    two.begin()
    assert two.alive == ["a", "b"], "one recipe says too little to leave but one"


def test_an_arm_that_was_never_tried_has_its_turn_once_the_last_gains_nothing() -> None:
    policy = Halving(["a", "b", "c", "d"], 64)
    known(policy, a=0.9, b=0.8, c=0.2, d=0.1)
    policy.begin()
    took(policy, "a", [0.9] * 10)
    took(policy, "b", [0.8] * 11)
    assert policy.alive == ["a"]
    took(policy, "a", [0.9] * 8)
    assert policy.alive == ["a", "c"], "a gained nothing, and nobody knows what c can"


def test_an_arm_beyond_the_constraints_is_worse_than_any_that_meets_them() -> None:
    policy = Halving(["a", "b"], 12)
    took(policy, "a", [0.9] * 3, beyond=0.1)
    took(policy, "b", [0.1, None, None])
    assert policy.alive == ["b"]


def test_failed_trials_are_spent_and_worth_nothing() -> None:
    policy = Halving(["a", "b"], 12)
    took(policy, "a", [None] * 3)
    took(policy, "b", [-5.0] * 3)
    assert policy.alive == ["b"]


def test_fewer_trials_than_arms_go_to_the_most_promising() -> None:
    policy = Halving(["a", "b", "c", "d"], 6)  # rounds of two
    known(policy, a=0.1, b=0.4, c=0.3, d=0.2)
    assert policy.choose({}) == "b"
    took(policy, "b", [0.4])
    assert policy.choose({}) == "c"
    took(policy, "c", [0.3])
    assert policy.alive == ["b", "c"]


def test_without_arms_there_is_no_turn() -> None:
    assert Halving([], 10).choose({}) is None


def opened(trials: int = 60, seed: int = 3, methods: Sequence[str] = FOUR, **space: Any) -> Opening:
    found: Space = make_space(make_spec(space={"methods": list(methods), "layers": 2, **space}), LAYERS)
    return Opening(found, seed, starts(found), trials)


def favour(method: str) -> Judge:
    """A bowl that is deep under one method only."""
    return lambda recipe: bowl(recipe, BEST) - (0.0 if recipe.groups[0].method == method else 0.3)


def methods_of(told: Sequence[Observation]) -> list[str]:
    return [seen.recipe.groups[0].method for seen in told if seen.recipe is not None]


@pytest.mark.parametrize("method", FOUR[:3])
def test_the_trials_go_to_the_method_that_is_best(method: str) -> None:
    opening = opened(120)
    told = drive(Arms(opening), opening, favour(method))
    own = methods_of(told[len(opening.starts) :])
    assert len(told) == 120 and len(set(own)) > 1, "the half that began better had its turn"
    assert own.count(method) > len(own) / 2 and set(own[-30:]) == {method}
    assert best(told) > -0.03


def test_a_proposal_is_a_point_of_the_whole_space_and_names_its_arm() -> None:
    opening = opened()
    for seen in drive(Arms(opening), opening, favour("ties"))[len(opening.starts) :]:
        assert seen.params is not None and seen.origin == f"x:{seen.params['method']}"
        assert opening.space.decode(seen.params) == seen.recipe


@pytest.mark.parametrize("stop", [8, 13, 25, 40, 59])
def test_a_replay_is_exact(stop: int) -> None:
    opening = opened()

    def shaky(recipe: Recipe) -> float | None:
        return None if recipe.groups[0].weights["c"] > 0.8 else favour("dare")(recipe)

    told = drive(Arms(opening), opening, shaky)
    found = replayed(Arms(opening), opening, told[:stop]).propose(stop)
    assert isinstance(found, Proposal)
    assert (found.params, f"x:{found.by}") == (told[stop].params, told[stop].origin)


def test_a_method_of_choices_is_an_arm_and_one_without_anything_to_vary_is_none() -> None:
    opening = opened(60, methods=["task_arithmetic", "layer_swap", "model_stock"])
    strategy = Arms(opening)
    assert strategy.policy.alive == ["task_arithmetic", "layer_swap"]
    own = methods_of(drive(strategy, opening, favour("layer_swap"))[len(opening.starts) :])
    assert own.count("layer_swap") > 5 and "model_stock" not in own


def test_one_method_is_its_optimiser_alone() -> None:
    opening = opened(80, methods=["task_arithmetic"])
    told = drive(Arms(opening), opening, favour("task_arithmetic"))
    assert best(told) > -0.03 and {seen.origin for seen in told[len(opening.starts) :]} == {"x:task_arithmetic"}
    assert told[-1].params is not None and "method" not in told[-1].params


def test_workers_at_the_same_time_get_different_arms() -> None:
    opening = opened()
    strategy = Arms(opening)
    found = [strategy.propose(number) for number in range(20, 24)]
    assert sorted(p.by for p in found if isinstance(p, Proposal)) == sorted(FOUR)


def test_spaces_without_arms_are_refused() -> None:
    with pytest.raises(InvalidStudy, match=r"space\.choose.*per_group"):
        Arms(opened(choose="per_group"))
    with pytest.raises(InvalidStudy, match="nothing to vary"):
        Arms(opened(methods=["model_stock"]))
    assert not isinstance(Arms(opened()).propose(30), Exhausted)
