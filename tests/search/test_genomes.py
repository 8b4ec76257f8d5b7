"""Genomes and what makes a child of two: hand-worked cases, and laws on any space and parents."""

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.catalog import Scalar
from merging.errors import InvalidRecipe
from search.evolution.binary import binary_child, spread
from search.evolution.genome import Genome, Inherit, Mutate, foreign, from_unit, is_number, read_genome, to_unit
from search.evolution.mutation import deviation_of, gaussian, polynomial
from search.evolution.splitting import Split, draw_split, split_child
from search.space import Dimension, Space, dimensions
from tests.search.factories import space_of

SPACES = (
    space_of(space={"layers": "each", "modules": "split"}),
    space_of(space={"methods": ["task_arithmetic", "ties", "layer_swap"], "choose": "per_group", "layers": 2}),
    space_of(space={"methods": ["ties", "dare_ties"], "layers": 2}),
    space_of(space={"gradient": 3}),
)
EVERYWHERE = {"all": 0.5, "attention": 0.5, "mlp": 0.5, "other": 0.5}


def drawn(space: Space, seed: int) -> Genome:
    """A genome drawn uniformly."""
    rng = np.random.default_rng(seed)
    params: dict[str, Scalar] = {}

    def pick(dimension: Dimension) -> Scalar:
        choices = dimension.choices or (False, True)
        number = is_number(dimension)
        params[dimension.name] = from_unit(dimension, rng.random()) if number else choices[rng.integers(len(choices))]
        return params[dimension.name]

    dimensions(space, pick)
    return read_genome(space, params)


def valued(space: Space, values: Mapping[str, float]) -> Genome:
    """A genome whose weights are their expert's value."""
    found = {d.name: values[d.expert] for d in dimensions(space)}
    return read_genome(space, found)


def child_of(space: Space, inherit: Inherit, mutate: Mutate = lambda d, value: value) -> dict[str, Scalar] | None:
    """The child, all of whose values lie in their ranges; None where its weights cannot be normalised."""
    params: dict[str, Scalar] = {}

    def pick(dimension: Dimension) -> Scalar:
        value = mutate(dimension, inherit(dimension))
        if is_number(dimension):
            assert dimension.low <= float(value) <= dimension.high
            assert isinstance(value, int) == (dimension.kind == "int")
        else:
            assert value in (dimension.choices or (False, True))
        params[dimension.name] = value
        return value

    try:
        space.walk(pick)
    except InvalidRecipe:
        return None
    return params


def test_a_child_is_mixed_one_way_before_the_split_and_the_other_way_after() -> None:
    space = space_of(space={"layers": 4})
    first, second = valued(space, {"a": 1.0, "b": 0.0, "c": 0.4}), valued(space, {"a": 0.0, "b": 1.0, "c": 0.4})
    inherit = split_child(first, second, Split(0.75, EVERYWHERE))
    child = {d.name: inherit(d) for d in dimensions(space)}
    for layer, share in ((0, 0.75), (1, 0.75), (2, 0.25), (3, 0.25)):
        found = [child[f"task_arithmetic.weight[{e}]@layer{layer}"] for e in "abc"]
        assert found == pytest.approx([share, 1.0 - share, 0.4])


def test_modules_are_split_apart_from_each_other() -> None:
    space = space_of(space={"layers": 4, "modules": "split"})
    first, second = valued(space, dict.fromkeys("abc", 1.0)), valued(space, dict.fromkeys("abc", 0.0))
    inherit = split_child(first, second, Split(0.9, {"attention": 0.0, "mlp": 1.0, "other": 0.5, "all": 0.5}))
    shares = {(d.modules, d.depth): inherit(d) for d in dimensions(space)}
    assert [shares["attention", depth] for depth in (0.125, 0.875)] == pytest.approx([0.1, 0.1])
    assert [shares["mlp", depth] for depth in (0.125, 0.875)] == pytest.approx([0.9, 0.9])
    assert shares["other", 0.375] == pytest.approx(0.9) and shares["other", 0.625] == pytest.approx(0.1)


def test_what_is_asked_for_once_is_mixed_by_the_first_share() -> None:
    space = space_of()
    first, second = valued(space, dict.fromkeys("abc", 1.0)), valued(space, dict.fromkeys("abc", 0.0))
    inherit = split_child(first, second, Split(0.3, EVERYWHERE))
    assert [inherit(d) for d in dimensions(space)] == pytest.approx([0.3] * 3)


def test_a_method_and_what_only_it_has_come_from_one_parent() -> None:
    space = space_of(space={"methods": ["task_arithmetic", "ties"], "layers": 2})
    seeds = range(40)
    ties = next(g for g in (drawn(space, s) for s in seeds) if g.params["method"] == "ties")
    plain = next(g for g in (drawn(space, s) for s in seeds) if g.params["method"] == "task_arithmetic")
    for share, whole in ((0.6, ties), (0.4, plain)):
        assert child_of(space, split_child(ties, plain, Split(share, EVERYWHERE))) == whole.params


def test_what_no_parent_has_is_taken_from_its_counterpart_or_the_catalog() -> None:
    space = space_of(space={"methods": ["task_arithmetic", "ties"]})
    parent = next(g for g in (drawn(space, s) for s in range(40)) if g.params["method"] == "task_arithmetic")
    asked = {d.name: d for d in dimensions(space, lambda d: "ties" if d.role == "method" else d.low)}
    weight = float(parent.params["task_arithmetic.weight[a]"])
    found = asked["ties.weight[a]"]
    assert foreign(found, (parent,)) == min(max(weight, found.low), found.high)
    density = asked["ties.density"]
    assert density.low <= float(foreign(density, (parent,))) <= density.high


def children(space: Space, seed: int) -> list[dict[str, Scalar]]:
    """A child of each pair of operators."""
    first, second, rng = drawn(space, seed), drawn(space, seed + 1), np.random.default_rng(seed)
    crossed = (split_child(first, second, draw_split(rng)), binary_child(first, second, rng))
    mutated = (gaussian(rng, 0.3, 0.3), polynomial(rng, 2, 0.3))
    pairs = zip(crossed, mutated, strict=True)
    return [child for pair in pairs if (child := child_of(space, *pair)) is not None]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(SPACES), st.integers(0, 2**20))
def test_children_are_points_of_the_space_again(space: Space, seed: int) -> None:
    for params in children(space, seed):
        again = read_genome(space, params)
        assert {d.name for d in again.dimensions} == set(params)
        assert space.decode(params).layer_count == 4


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(SPACES), st.integers(0, 2**20))
def test_a_mixture_lies_between_its_parents_and_a_twin_s_child_is_the_twin(space: Space, seed: int) -> None:
    first, second = drawn(space, seed), drawn(space, seed + 1)
    split = draw_split(np.random.default_rng(seed))
    inherit, own = split_child(first, second, split), split_child(first, first, split)
    assert {d.name: own(d) for d in first.dimensions} == dict(first.params)
    for d in first.dimensions:
        if d.name in second.params and is_number(d):
            low, high = sorted((float(first.params[d.name]), float(second.params[d.name])))
            assert low - 1e-9 <= float(inherit(d)) <= high + 1e-9


@settings(deadline=None, max_examples=60)
@given(st.floats(0.0, 1.0), st.floats(0.001, 1.0), st.floats(1.1, 50.0), st.booleans())
def test_a_share_of_a_range_is_undone(share: float, low: float, factor: float, log: bool) -> None:
    d = Dimension("x", "weight", "float", low, low * factor, log)
    value = from_unit(d, share)
    assert d.low <= float(value) <= d.high and to_unit(d, value) == pytest.approx(share, abs=1e-6)


def test_spreads_and_steps_are_those_of_the_books() -> None:
    """u = .5 gives the parents themselves and no step; the formulas worked by hand at u = .125 and .875."""
    assert spread(0.5) == 1.0 and deviation_of(0.5) == 0.0
    assert spread(0.125, 1.0) == pytest.approx(0.5) and spread(0.875, 1.0) == pytest.approx(2.0)
    assert deviation_of(0.125, 1.0) == pytest.approx(-0.5) and deviation_of(0.875, 1.0) == pytest.approx(0.5)
    assert spread(0.875) == pytest.approx(4 ** (1 / 16)) and deviation_of(0.0) == -1.0


def test_polynomial_mutation_changes_about_one_number_and_gaussian_all() -> None:
    space = SPACES[0]
    genome = drawn(space, 1)
    changed: dict[str, list[int]] = {"polynomial": [], "gaussian": []}
    for seed in range(200):
        rng = np.random.default_rng(seed)
        for name, mutate in (
            ("polynomial", polynomial(rng, genome.numbers, 0.0)),
            ("gaussian", gaussian(rng, 0.05, 0)),
        ):
            changed[name].append(
                sum(mutate(d, genome.params[d.name]) != genome.params[d.name] for d in genome.dimensions)
            )
    assert 0.7 < np.mean(changed["polynomial"]) < 1.3
    assert np.mean(changed["gaussian"]) > 0.8 * genome.numbers, "all but those at an end of their range"


def test_without_a_step_and_without_switching_nothing_changes() -> None:
    genome = drawn(SPACES[1], 3)
    mutate = gaussian(np.random.default_rng(0), 0.0, 0.0)
    assert {d.name: mutate(d, genome.params[d.name]) for d in genome.dimensions} == dict(genome.params)
