"""`qmc` and `grid`: trials laid out beforehand."""

from itertools import product
from typing import Any

import numpy as np
import pytest

from merging.errors import InvalidStudy
from merging.recipe import Recipe
from search.space import Space, dimensions, make_space
from search.strategies.choose import make_strategy
from search.strategies.contract import Exhausted, Observation, Proposal, Strategy
from search.strategies.laid import Grid, SobolSequence, every_dimension
from search.strategies.near import at_share, choices_of
from search.strategies.opening import Opening
from tests.search.driven import drive, replayed
from tests.search.factories import LAYERS, make_spec


def space_of(**space: Any) -> Space:
    return make_space(make_spec(space=space), LAYERS)


def nothing(recipe: Recipe) -> float:
    return 0.0


def points(strategy: Strategy, count: int) -> list[dict[str, Any]]:
    found = [strategy.propose(number) for number in range(count)]
    return [p.params or {} for p in found if isinstance(p, Proposal)]


def test_a_grid_has_every_combination_once_and_then_ends() -> None:
    opening = Opening(space_of(), 7, (), 30, options={"points": 3})
    told = drive(make_strategy("grid", opening), opening, nothing)
    met = [tuple((seen.params or {}).values()) for seen in told]
    assert len(met) == 27 and set(met) == set(product((0.0, 0.5, 1.0), repeat=3))
    strategy = replayed(make_strategy("grid", opening), opening, told)
    assert isinstance(strategy.propose(27), Exhausted)


def test_a_grid_without_points_ends_within_the_trials_where_it_can() -> None:
    assert Grid(space_of(), 0, 64).size == 64 and Grid(space_of(), 0, 63).size == 27
    assert Grid(space_of(layers="each"), 0, 30).size == 2**12, "two values at least"


def test_a_grid_leaps_about() -> None:
    strategy = make_strategy("grid", Opening(space_of(), 7, (), 1000))
    early = points(strategy, 40)
    for name in early[0]:
        assert len({point[name] for point in early}) >= 8, f"{name} has nearly all of its ten values early"


def test_a_grid_over_several_methods_has_each_one_s_own_combinations() -> None:
    space = space_of(methods=["task_arithmetic", "ties", "layer_swap", "model_stock"])
    grid = Grid(space, 1, 0, points=2)
    assert grid.size == 2**3 + 2**5 + 3 + 1
    cells = [grid.at(index) for index in range(grid.size)]
    assert None not in cells and grid.at(grid.size) is None
    methods = [str(cell["method"]) for cell in cells if cell is not None]
    assert {m: methods.count(m) for m in sorted(set(methods))} == {
        "layer_swap": 3, "model_stock": 1, "task_arithmetic": 8, "ties": 32
    }  # fmt: skip
    assert len({tuple(sorted((cell or {}).items())) for cell in cells}) == grid.size


def test_a_grid_of_whole_numbers_has_no_more_values_than_there_are() -> None:
    space = space_of(methods=["consensus"], fixed={"consensus.lambda_m": 0.4})
    (d,) = (d for d in dimensions(space) if d.kind == "int")
    cells = [cell for index in range(99) if (cell := Grid(space, 0, 0, points=9).at(index)) is not None]
    values = {cell[d.name] for cell in cells}
    assert values == set(range(int(d.low), int(d.high) + 1))


def test_groups_with_methods_of_their_own_have_no_even_grid() -> None:
    space = space_of(methods=["task_arithmetic", "ties"], layers=2, choose="per_group")
    with pytest.raises(InvalidStudy, match=r"space\.choose"):
        make_strategy("grid", Opening(space, 0, ()))


def test_qmc_fills_the_space_more_evenly_than_independent_draws() -> None:
    space = space_of()
    names = [d.name for d in dimensions(space)]
    opening = Opening(space, 5, (), 64)
    for name in ("qmc", "random"):
        met = np.array([[p[n] for n in names] for p in points(make_strategy(name, opening), 64)])
        even = all(np.all(np.bincount((column * 16).astype(int), minlength=16) == 4) for column in met.T)
        assert even == (name == "qmc"), "every sixteenth of a range holds four of 64 points"


def test_qmc_has_every_choice_as_often() -> None:
    space = space_of(methods=["task_arithmetic", "ties", "layer_swap", "dare"], choose="per_group", layers=2)
    met = points(make_strategy("qmc", Opening(space, 5, (), 64)), 64)
    chosen = [point["method@layers0-1"] for point in met]
    assert {m: chosen.count(m) for m in set(chosen)} == dict.fromkeys(
        ("task_arithmetic", "ties", "layer_swap", "dare"), 16
    )
    assert all(space.decode(point) for point in met)
    names = {d.name for d in every_dimension(space)}
    assert names >= {"ties.density@layers2-3", "layer_swap.source@layers0-1", "method@layers2-3"}


def test_a_place_in_the_sequence_is_the_same_from_wherever_one_goes_there() -> None:
    space = space_of(layers="each")
    one, other = SobolSequence(space, 3), SobolSequence(space, 3)
    walked = [one.at(index) for index in range(6)]
    assert other.at(5) == walked[5] and other.at(2) == walked[2] and other.at(3) == walked[3]
    assert SobolSequence(space, 4).at(5) != walked[5], "another seed scrambles it otherwise"


def test_what_is_started_elsewhere_is_none_of_the_sequence() -> None:
    opening = Opening(space_of(), 5, (), 64)
    strategy = make_strategy("qmc", opening)
    first = points(make_strategy("qmc", opening), 2)
    strategy.observe(Observation(9, "greedy_soup", first[0], None, 0.5))
    assert points(strategy, 2) == first


def test_shares_of_choices_are_equal_parts() -> None:
    space = space_of(methods=["task_arithmetic", "ties"])
    method = every_dimension(space)[0]
    assert choices_of(method) == ("task_arithmetic", "ties")
    assert [at_share(method, share) for share in (0.0, 0.49, 0.5, 0.999)] == ["task_arithmetic"] * 2 + ["ties"] * 2
