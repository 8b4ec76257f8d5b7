"""NSGA-II and NSGA-III: fronts, crowding and niches on cases worked by hand, and whole searches."""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from search.space import make_space
from search.starts.pool import starts
from search.strategies.choose import make_strategy
from search.strategies.contract import Observation, Proposal
from search.strategies.nsga.breeding import child
from search.strategies.nsga.fronts import crowding, fronts
from search.strategies.nsga.niches import directions, niches
from search.strategies.nsga.population import Member, Population
from search.strategies.opening import Opening
from tests.search.driven import replayed
from tests.search.factories import LAYERS, make_spec

Name = Literal["nsga2", "nsga3", "random"]
NSGA: tuple[Name, Name] = ("nsga2", "nsga3")
RANDOM: Name = "random"
A, B = "task_arithmetic.weight[a]", "task_arithmetic.weight[b]"


def test_fronts_of_a_case_worked_by_hand() -> None:
    values = np.array([[2.0, 2.0], [3.0, 1.0], [1.0, 1.0], [2.0, 1.0], [2.0, 2.0]])
    assert fronts(values, np.zeros(5)).tolist() == [0, 0, 2, 1, 0]


def test_whoever_meets_the_constraints_dominates_and_of_the_others_the_nearer_one() -> None:
    values = np.array([[0.0, 0.0], [9.0, 9.0], [5.0, 5.0]])
    assert fronts(values, np.array([0.0, 0.2, 0.1])).tolist() == [0, 2, 1]


def test_crowding_adds_the_gaps_between_neighbours_and_keeps_the_ends() -> None:
    values = np.array([[0.0, 4.0], [1.0, 3.0], [3.0, 1.0], [4.0, 0.0]])
    assert crowding(values).tolist() == [np.inf, 3 / 4 + 3 / 4, 3 / 4 + 3 / 4, np.inf]
    same = np.column_stack([values[:, 0], np.ones(4)])
    assert crowding(same).tolist() == [np.inf, 3 / 4, 3 / 4, np.inf], "an objective without differences says nothing"


@pytest.mark.parametrize(("objectives", "most", "count"), [(1, 20, 1), (2, 20, 20), (3, 20, 15), (4, 3, 4)])
def test_as_many_even_directions_as_fit(objectives: int, most: int, count: int) -> None:
    found = directions(objectives, most)
    assert found.shape == (count, objectives) and np.allclose(found.sum(axis=1), 1.0)
    assert len({tuple(row) for row in found.tolist()}) == count and np.all(found.max(axis=0) == 1.0)


def test_niches_of_a_case_worked_by_hand() -> None:
    """Costs (0, 10), (1, 0), (.5, 5) and (.1, 9) scale to (0, 1), (1, 0), (.5, .5) and (.1, .9)."""
    values = np.array([[1.0, 0.0], [0.0, 10.0], [0.5, 5.0], [0.9, 1.0]])
    found, apart = niches(values, np.array([[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]]))
    assert found.tolist() == [0, 2, 1, 0]
    assert apart == pytest.approx([0.0, 0.0, 0.0, 0.1])


def test_objectives_that_are_all_the_same_leave_niches_defined() -> None:
    found, apart = niches(np.ones((3, 2)), directions(2, 4))
    assert np.all(np.isfinite(apart)) and len(found) == 3


def grown(values: list[tuple[float, float]], size: int, *, references: bool) -> list[tuple[float, ...]]:
    population = Population(size, references=references)
    for index, value in enumerate(values):
        population.join(Member({A: float(index)}, value, 0.0))
    return [member.values for member in population.members]


@pytest.mark.parametrize("references", [False, True])
def test_the_dominated_leave_first_then_the_crowded(references: bool) -> None:
    line = [(0.0, 4.0), (4.0, 0.0), (2.0, 2.0)]
    assert grown([*line, (1.0, 1.0)], 3, references=references) == line
    assert grown([*line, (2.0, 3.0)], 3, references=references) == [(0.0, 4.0), (4.0, 0.0), (2.0, 3.0)]
    kept = grown([*line, (2.1, 1.9)], 3, references=references)
    assert (0.0, 4.0) in kept and (4.0, 0.0) in kept, "the ends stay"


def test_a_child_lies_within_the_bounds_near_its_parents_and_is_neither() -> None:
    space = make_space(make_spec(), LAYERS)
    low, high = (dict.fromkeys((A, B, "task_arithmetic.weight[c]"), value) for value in (0.2, 0.6))
    children = [child(space, low, high, 0.1, np.random.default_rng(seed)).params or {} for seed in range(300)]
    values = np.array([list(params.values()) for params in children])
    assert all(params not in (low, high) for params in children)
    assert values.min() >= 0.0 and values.max() <= 1.0
    assert np.mean(np.abs(values - 0.4) < 0.4) > 0.9 and abs(values.mean() - 0.4) < 0.03


def test_a_child_of_two_methods_is_a_point_of_the_space() -> None:
    space = make_space(make_spec(space={"methods": ["task_arithmetic", "ties"], "layers": 2}), LAYERS)
    begin = [s.params for s in starts(space) if s.params is not None]
    first = next(p for p in begin if p["method"] == "task_arithmetic")
    second = next(p for p in begin if p["method"] == "ties")
    found = [child(space, first, second, 0.1, np.random.default_rng(seed)) for seed in range(40)]
    assert {(p.params or {})["method"] for p in found} == {"task_arithmetic", "ties"}
    assert all(space.decode(p.params or {}) == p.recipe for p in found)


def search(
    name: Name, trials: int, seed: int, judge: Callable[[Observation], Observation], layers: int = 1
) -> list[Observation]:
    space = make_space(make_spec(space={"layers": layers}), LAYERS)
    opening = Opening(space, seed, starts(space), trials, objectives=2)
    strategy, told = make_strategy(name, opening), []
    for number in range(trials):
        if number < len(opening.starts):
            start = opening.starts[number]
            found = Proposal(start.params, start.recipe)
            strategy.reserve(number, found)
        else:
            proposed = strategy.propose(number)
            assert isinstance(proposed, Proposal)
            found = proposed
        told.append(judge(Observation(number, name, found.params, found.recipe, 0.0)))
        strategy.observe(told[-1])
    return told


def bent(seen: Observation) -> Observation:
    """Two objectives, each best where the first expert's weight is another, and both spoilt by the other weights."""
    a, b, c = np.array(list((seen.params or {}).values()), dtype=float).reshape(-1, 3).T
    spoilt = 0.5 * np.mean((c - 0.3) ** 2) + 0.5 * np.mean((a - b) ** 2)
    values = tuple(float(1.0 - np.mean((a - best) ** 2) - spoilt) for best in (0.9, 0.4))
    return replace(seen, value=sum(values) / 2, values=values)


def covered(told: list[Observation]) -> float:
    """The area that the front dominates above (0.5, 0.5)."""
    area, height = 0.0, 0.5
    for x, y in sorted((seen.values for seen in told if seen.values), reverse=True):
        if x > 0.5 and y > height:
            area, height = area + (x - 0.5) * (y - height), y
    return area


@pytest.mark.parametrize("name", NSGA)
def test_the_front_is_wider_than_that_of_random_draws(name: Name) -> None:
    areas = {
        who: sum(covered(search(who, 200, seed, bent, layers=4)) for seed in range(3)) / 3 for who in (name, RANDOM)
    }
    assert areas[name] > areas[RANDOM] + 0.003, areas


@pytest.mark.parametrize("name", NSGA)
def test_constraints_come_before_the_objectives(name: Name) -> None:
    def bound(seen: Observation) -> Observation:
        return replace(bent(seen), constraints=(float((seen.params or {})[A]) - 0.3,))

    free, kept = (search(name, 90, 1, judge) for judge in (bent, bound))
    share = [sum(float((s.params or {})[A]) <= 0.3 for s in told[-40:]) / 40 for told in (free, kept)]
    assert share[1] > 0.5 > 0.3 > share[0], share


@pytest.mark.parametrize("name", NSGA)
@pytest.mark.parametrize("stop", [6, 15, 22, 45])
def test_a_replay_is_exact_with_several_objectives_and_failed_trials(name: Name, stop: int) -> None:
    def shaky(seen: Observation) -> Observation:
        failed = float((seen.params or {})[B]) > 0.7
        return replace(seen, value=None) if failed else bent(seen)

    told = search(name, 60, 4, shaky)
    space = make_space(make_spec(), LAYERS)
    opening = Opening(space, 4, starts(space), 60, objectives=2)
    found = replayed(make_strategy(name, opening), opening, told[:stop]).propose(stop)
    assert isinstance(found, Proposal) and found.params == told[stop].params
