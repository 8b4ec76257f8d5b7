"""The search space: one walk samples, decodes and encodes; parameters exist only where they are used."""

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from merging.catalog import CATALOG, Method
from merging.errors import InvalidRecipe, InvalidStudy
from search.space import Dimension, Space, dimensions, middle
from search.starts.known import default_start
from search.starts.pool import starts
from search.starts.start import UNIFORM
from tests.search.factories import LAYERS, space_of

EVERY_METHOD = [m.name for m in CATALOG.values() if m.experts[1] >= 3]


def names(**sections: object) -> list[str]:
    return [d.name for d in dimensions(space_of(**sections))]


def test_one_method_over_the_whole_model_has_one_weight_an_expert() -> None:
    assert names() == [f"task_arithmetic.weight[{e}]" for e in "abc"]


def test_each_group_has_weights_of_its_own() -> None:
    found = names(space={"layers": "each"})
    assert len(found) == LAYERS * 3 and "task_arithmetic.weight[b]@layer2" in found
    assert len(names(space={"layers": 2, "modules": "split"})) == 2 * 3 * 3
    assert "task_arithmetic.weight[a]@layers0-1.mlp" in names(space={"layers": 2, "modules": "split"})


def test_the_method_is_one_choice_per_study_or_one_per_group() -> None:
    methods = {"methods": ["task_arithmetic", "ties"], "layers": 2}
    assert [n for n in names(space=methods) if n.startswith("method")] == ["method"]
    per_group = names(space={**methods, "choose": "per_group"})
    assert [n for n in per_group if n.startswith("method")] == ["method@layers0-1", "method@layers2-3"]


def test_a_parameter_exists_only_under_its_method() -> None:
    space = space_of(space={"methods": ["task_arithmetic", "ties"]})

    def choose(method: str) -> list[str]:
        return [d.name for d in dimensions(space, lambda d: method if d.role == "method" else middle(d))]

    assert not any(n.startswith("ties") for n in choose("task_arithmetic"))
    assert "ties.density" in choose("ties")


def test_bounds_replace_the_range_turn_on_what_is_redundant_and_hold_what_has_no_width() -> None:
    bounds = {"task_arithmetic.weight": [0.2, 0.4], "task_arithmetic.lambda": [0.5, 1.0]}
    found = {d.name: (d.low, d.high) for d in dimensions(space_of(space={"bounds": bounds}))}
    assert found["task_arithmetic.lambda"] == (0.5, 1.0)
    assert found["task_arithmetic.weight[a]"] == (0.2, 0.4)
    held = space_of(space={"bounds": {"task_arithmetic.lambda": [0.7, 0.7]}})
    assert len(dimensions(held)) == 3
    assert held.walk(middle).groups[0].parameters["lambda"] == 0.7


def test_a_one_hot_method_is_a_choice_of_experts() -> None:
    space = space_of(space={"methods": ["layer_swap"], "layers": 2})
    found = dimensions(space)
    assert [d.kind for d in found] == ["choice", "choice"]
    recipe = space.walk(lambda d: "b")
    assert recipe.groups[0].weights == {"a": 0.0, "b": 1.0, "c": 0.0}


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6),
    st.sets(st.sampled_from(EVERY_METHOD), min_size=1),
    st.sampled_from([1, 2, 3, "each"]),
    st.booleans(),
    st.booleans(),
)
def test_decoding_what_a_walk_picked_gives_the_same_recipe(
    seed: int, methods: set[str], layers: int | str, split: bool, per_group: bool
) -> None:
    space = space_of(
        space={
            "methods": sorted(methods),
            "layers": layers,
            "modules": "split" if split else "together",
            "choose": "per_group" if per_group else "per_study",
        }
    )
    rng, picked = random.Random(seed), {}

    def pick(d: Dimension) -> bool | int | float | str:
        drawn: dict[str, Callable[[], bool | int | float | str]] = {
            "choice": lambda: rng.choice(d.choices),
            "bool": lambda: rng.choice([False, True]),
            "int": lambda: rng.randint(int(d.low), int(d.high)),
            "float": lambda: rng.uniform(d.low, d.high),
        }
        picked[d.name] = drawn[d.kind]()
        return picked[d.name]

    recipe = space.walk(pick)
    assert space.decode(picked) == recipe
    assert recipe.layer_count == LAYERS
    for group in recipe.groups:  # a recipe says everything: no default is left to its reader
        assert set(group.parameters) == {p.name for p in CATALOG[group.method].parameters}


def test_all_zero_weights_make_no_recipe_where_they_are_normalised() -> None:
    space = space_of(space={"methods": ["ties"]})
    with pytest.raises(InvalidRecipe, match="all zero"):
        space.walk(lambda d: 0.0 if d.role == "weight" else middle(d))
    assert len(dimensions(space, lambda d: 0.0 if d.role == "weight" else middle(d))) == 5


def test_starts_are_the_experts_the_uniform_soup_and_each_methods_defaults() -> None:
    space = space_of(space={"methods": ["task_arithmetic", "ties"], "layers": 2})
    found = {s.origin: s for s in starts(space)}
    assert list(found) == ["expert:a", "expert:b", "expert:c", UNIFORM, "default:ties"]
    for start in found.values():
        assert start.params is not None and space.decode(start.params) == start.recipe
    assert found["expert:b"].recipe.groups[1].weights == {"a": 0.0, "b": 1.0, "c": 0.0}
    assert found[UNIFORM].recipe.groups[0].weights == dict.fromkeys("abc", 1 / 3)


def test_a_start_the_space_cannot_express_is_a_recipe_outside_it() -> None:
    narrow = space_of(space={"bounds": {"task_arithmetic.weight": [0.1, 0.5]}})
    found = {s.origin: s for s in starts(narrow)}
    assert found["expert:a"].params is None and found["expert:a"].recipe.groups[0].method == "linear"
    assert found[UNIFORM].params is not None
    held = space_of(space={"bounds": {"task_arithmetic.lambda": [0.5, 0.5]}})
    assert {s.params for s in starts(held) if s.origin.startswith("expert")} == {None}


def test_the_same_merge_is_no_two_starts() -> None:
    assert [s.origin for s in starts(space_of(space={"methods": ["linear"]}))][-1] == UNIFORM


def test_a_study_of_one_expert_has_no_soup() -> None:
    space = space_of(models={"base": "base", "experts": ["only"]})
    assert [s.origin for s in starts(space)] == ["expert:only"]


def gradient(knots: int = 3, **space: object) -> Space:
    return space_of(space={"gradient": knots, **space})


def test_a_gradient_asks_at_its_knots_and_gives_every_layer_what_lies_between() -> None:
    space = gradient()
    asked = [f"task_arithmetic.weight[{e}]@knot{k}" for k in range(3) for e in "abc"]
    assert names(space={"gradient": 3}) == asked
    values = {"knot0": 0.0, "knot1": 0.6, "knot2": 0.3}
    recipe = space.walk(lambda d: values[d.name.partition("@")[2]])
    assert [g.layers for g in recipe.groups] == [(i, i + 1) for i in range(LAYERS)]
    # four layers at 0, ⅔, 4/3 and 2 of the way between knots 0, 1 and 2
    assert [g.weights["a"] for g in recipe.groups] == pytest.approx([0.0, 0.4, 0.5, 0.3])


def test_a_gradient_splits_modules_and_chooses_experts_at_the_nearest_knot() -> None:
    split = [d.name for d in dimensions(gradient(2, modules="split"))]
    assert len(split) == 2 * 3 * 3 and "task_arithmetic.weight[b]@knot1.mlp" in split
    space = gradient(2, methods=["layer_swap"])
    recipe = space.walk(lambda d: "a" if d.name.endswith("knot0") else "c")
    assert [max(g.weights, key=lambda name: g.weights[name]) for g in recipe.groups] == ["a", "a", "c", "c"]


def test_equal_knots_are_one_value_exactly_and_a_start_lies_in_the_space() -> None:
    recipe = gradient().walk(lambda d: 0.1)
    assert {g.weights["b"] for g in recipe.groups} == {0.1}
    assert {s.origin for s in starts(gradient()) if s.params} >= {UNIFORM, "expert:a"}


def test_a_fixed_value_is_held_and_not_asked_for() -> None:
    space = space_of(space={"methods": ["ties"], "fixed": {"ties.scope": "model", "ties.density": 0.25}})
    assert [d.parameter for d in dimensions(space)].count("density") == 0
    parameters = space.walk(middle).groups[0].parameters
    assert (parameters["scope"], parameters["density"]) == ("model", 0.25)
    assert any(s.origin == "default:ties" for s in starts(space))


@pytest.mark.parametrize(
    "row", [row for row in CATALOG.values() if row.weighting != "one_hot"], ids=lambda row: row.name
)
def test_every_method_s_defaults_lie_in_its_space(row: Method) -> None:
    if row.experts[1] >= 3:
        space = space_of(space={"methods": [row.name]})
        found = default_start(space, row)
        assert found is not None and found.params is not None


def test_more_knots_than_layers_are_refused() -> None:
    with pytest.raises(InvalidStudy, match=f"space.gradient: {LAYERS + 1} is more knots than the model has layers"):
        gradient(LAYERS + 1)


def test_a_layer_on_a_knot_asks_for_that_knot_alone() -> None:
    assert len(dimensions(gradient(LAYERS))) == 3 * LAYERS
