"""CMA-ES from coarse to fine: which coordinates move together, when that changes, and what it is worth."""

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from merging.profile import Profile
from merging.recipe import Recipe
from search.space import Space, dimensions, make_space
from search.starts.pool import starts
from search.strategies.cma.cube import Cube
from search.strategies.cma.distribution import Distribution
from search.strategies.cma.stages import Stage, plan_stages
from search.strategies.contract import Observation, Proposal
from search.strategies.evolved import Evolved
from search.strategies.opening import Opening
from tests.search.driven import Judge, best, drive, replayed, tell_starts
from tests.search.factories import make_spec

DEEP = 8


def deep(layers: int = DEEP, **space: Any) -> Space:
    return make_space(make_spec(space={"layers": "each", **space}), layers)


def opened(space: Space, trials: int = 60, seed: int = 3, **options: Any) -> Opening:
    return Opening(space, seed, starts(space), trials, options=options)


def layered(seed: int, apart: float = 0.1, layers: int = DEEP) -> Judge:
    """A bowl whose best weights have a common part, and a part of each layer that is so large."""
    draw = random.Random(seed)
    common = {e: draw.uniform(0.1, 0.9) for e in "abc"}
    wanted = {(e, n): min(max(common[e] + apart * draw.gauss(0, 1), 0), 1) for e in "abc" for n in range(layers)}

    def judge(recipe: Recipe) -> float:
        pairs = [(g.weights[e], wanted[e, n]) for g in recipe.groups for n in range(*g.layers) for e in "abc"]
        return -sum((weight - target) ** 2 for weight, target in pairs) / layers

    return judge


def together(stage: Stage, space: Space) -> set[frozenset[str]]:
    """The names of what moves together."""
    names = [d.name for d in dimensions(space)]
    return {
        frozenset(n for n, m in zip(names, stage.member, strict=True) if m == index)
        for index in range(stage.coefficients)
    }


def test_the_stages_of_eight_layers_move_all_then_quarters_then_each() -> None:
    space = deep()
    coarse, segments, fine = plan_stages(dimensions(space), 100)
    assert [s.coefficients for s in (coarse, segments, fine)] == [3, 12, 24]
    assert frozenset(f"task_arithmetic.weight[a]@layer{n}" for n in range(8)) in together(coarse, space)
    assert {"task_arithmetic.weight[b]@layer2", "task_arithmetic.weight[b]@layer3"} in together(segments, space)
    assert [s.trials for s in (coarse, segments, fine)] == [20, 30, None]
    assert [s.step for s in (coarse, segments, fine)] == [0.15, 0.12, 0.1]


def test_a_stage_as_fine_as_the_next_is_left_out_and_none_is_endless_but_the_last() -> None:
    assert [s.name for s in plan_stages(dimensions(deep(4)), 100)] == ["coarse", "fine"]
    assert [s.name for s in plan_stages(dimensions(deep(layers=8, gradient=None)), 100, coarse=False)] == ["fine"]
    (only,) = plan_stages(dimensions(make_space(make_spec(), 8)), 100)
    assert (only.name, only.step, only.trials) == ("fine", 0.15, None)
    unlimited = plan_stages(dimensions(deep()), 1_000_000)
    assert [s.trials for s in unlimited] == [70, 110, None], "ten generations of 7 and of 11"


def test_modules_and_parameters_without_a_place_move_by_themselves() -> None:
    space = deep(methods=["ties"], modules="split")
    coarse = together(plan_stages(dimensions(space), 100)[0], space)
    assert len(coarse) == 3 * 3 + 2 * 3, "three experts, lambda and density, in each of three kinds of modules"


def test_only_important_layers_move_alone_at_last() -> None:
    space, moved = deep(), (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 900.0, 1.0)
    profile = Profile(inner=tuple(((m,),) for m in moved), base=(1.0,) * 8)
    fine = together(plan_stages(dimensions(space), 100, layers=3, profile=profile)[-1], space)
    assert {"task_arithmetic.weight[a]@layer6"} in fine and {"task_arithmetic.weight[a]@layer5"} in fine
    assert {"task_arithmetic.weight[a]@layer0", "task_arithmetic.weight[a]@layer1"} in fine
    assert {"task_arithmetic.weight[a]@layer4"} in fine, "its segment's other layer moves alone"
    assert len(fine) == 3 * (3 + 3)
    assert len(together(plan_stages(dimensions(space), 100, layers=3)[-1], space)) == 24, "nothing known: all alone"
    assert plan_stages(dimensions(space), 100, layers=8, profile=profile) == plan_stages(dimensions(space), 100)


def test_a_stage_moves_offsets_and_keeps_the_finer_structure_of_its_centre() -> None:
    space = deep(2)
    cube = Cube(space, "cmaes")
    centre = np.array([0.2, 0.4, 0.6, 0.8, 0.5, 0.99])
    coarse = plan_stages(cube.dimensions, 100)[0]
    made = Distribution(coarse, centre, cube.tolerance, 0.01)
    drawn = made.draw(1)
    moved = drawn - centre
    assert moved[:3] == pytest.approx(moved[3:], abs=0.03) and moved[:2] == pytest.approx(moved[3:5])
    offsets = made.offsets(drawn)
    assert offsets is not None and offsets[:2] == pytest.approx(moved[:2])
    assert made.offsets(np.full(6, 0.5)) is None, "no common offset makes that"


def test_what_leaves_the_cube_lies_on_its_surface_and_is_known_by_what_does_not() -> None:
    space = deep(2)
    cube = Cube(space, "cmaes")
    made = Distribution(
        plan_stages(cube.dimensions, 100)[0], np.array([0.0, 0.5, 0.5, 0.3, 0.5, 0.5]), cube.tolerance, 1.0
    )
    below = np.array([0.0, 0.5, 0.5, 0.2, 0.5, 0.5])
    offsets = made.offsets(below)
    assert offsets is not None and offsets[0] == pytest.approx(-0.1)
    gone = made.offsets(np.array([0.0, 0.5, 0.5, 0.0, 0.5, 0.5]))
    assert gone is not None and gone[0] == pytest.approx(-0.3), "as far as the last to come there"


def test_every_draw_is_within_the_bounds() -> None:
    space = deep(bounds={"task_arithmetic.weight": [0.1, 0.3]})
    opening = opened(space, 120)
    for seen in drive(Evolved(opening), opening, layered(1))[len(opening.starts) :]:
        assert seen.params is not None
        assert all(0.1 <= float(value) <= 0.3 for value in seen.params.values())


def test_the_coarse_stage_finds_the_common_part_and_the_fine_one_the_rest() -> None:
    space = deep()
    opening = opened(space, 305)  # 300 after the starts: 60, 90 and 150
    begun, coarse = len(opening.starts), len(opening.starts) + 60
    told = drive(strategy := Evolved(opening), opening, layered(5, apart=0.0))
    for seen in told[begun:coarse]:
        assert seen.params is not None
        assert len(set(seen.params.values())) <= 3, "all layers alike"
    assert best(told[:coarse]) > best(told[:begun]) / 10
    assert strategy.stage == "fine"
    rough = drive(Evolved(opening), opening, layered(5, apart=0.2))
    limit = best(rough[: coarse + 90])
    assert best(rough[:coarse]) < limit - 0.01 and limit < best(rough) - 0.01, "what differs is found later"


def test_coarse_to_fine_beats_all_at_once_at_a_small_budget() -> None:
    space, won = deep(), []
    for seed in range(5):
        found = {}
        for granularity in ("coarse_to_fine", "all"):
            opening = opened(space, 60, seed, granularity=granularity)
            found[granularity] = best(drive(Evolved(opening), opening, layered(seed)))
        won.append(found["coarse_to_fine"] - found["all"])
    assert sum(won) / len(won) > 0.02, won


@pytest.mark.parametrize("stop", [5, 12, 26, 40, 59])
def test_a_replay_is_exact_in_every_stage(stop: int) -> None:
    opening = opened(deep())

    def shaky(recipe: Recipe) -> float | None:
        value = layered(2)(recipe)
        return None if recipe.groups[0].weights["b"] > 0.5 else value

    told = drive(Evolved(opening), opening, shaky)
    again = replayed(Evolved(opening), opening, told[:stop])
    found = again.propose(stop)
    assert isinstance(found, Proposal) and found.params == told[stop].params


def test_more_trials_later_go_on_around_the_best() -> None:
    space = deep()
    short = opened(space, 60)
    told = drive(Evolved(short), short, layered(4))
    top = max(told, key=lambda seen: seen.value or -9.0)
    more = replace(short, trials=600)
    strategy = replayed(Evolved(more), more, told)
    assert isinstance(strategy, Evolved) and strategy.stage == "coarse"
    cube = Cube(space, "cmaes")
    assert top.params is not None
    near = []
    for number in range(60, 80):
        found = strategy.propose(number)
        assert isinstance(found, Proposal) and found.params is not None
        near.append(cube.point(found.params) - cube.point(top.params))
    assert abs(np.mean(near)) < 0.1, "offsets around the best of the fine stage"


def test_idle_workers_need_not_wait_for_the_starts() -> None:
    opening = opened(deep())
    strategy = Evolved(opening)
    for number, start in enumerate(opening.starts):
        strategy.reserve(number, Proposal(start.params, start.recipe))
    assert isinstance(strategy.propose(len(opening.starts)), Proposal), "nothing is told yet"
    start = opening.starts[1]
    strategy.observe(Observation(1, start.origin, start.params, start.recipe, 0.9))
    found = strategy.propose(len(opening.starts) + 1)
    assert isinstance(found, Proposal) and found.params is not None and start.params is not None
    cube = Cube(opening.space, "cmaes")
    moved = cube.point(found.params) - cube.point(start.params)
    assert np.all(np.abs(moved) < 0.6), "near the best start told so far"


def test_a_better_recipe_of_somebody_else_becomes_the_centre() -> None:
    opening = opened(deep(), 60)
    strategy = Evolved(opening)
    told = tell_starts(strategy, opening.starts, layered(1))
    assert told[0].params is not None
    given = {name: 0.4 + 0.05 * (index % 8) for index, name in enumerate(told[0].params)}
    strategy.observe(Observation(30, "greedy_soup", dict(given), None, 5.0))
    cube = Cube(opening.space, "cmaes")
    draws = [strategy.propose(number) for number in range(40, 70)]
    points = [cube.point(d.params) for d in draws if isinstance(d, Proposal) and d.params is not None]
    assert np.mean(points, axis=0) == pytest.approx(cube.point(dict(given)), abs=0.12)
