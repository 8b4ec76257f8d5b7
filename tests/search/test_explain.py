"""A winner's recipe with one thing changed, and what trials' scores depended on: numbers worked out by hand."""

from typing import Any

import numpy as np
import pytest

from merging.catalog import CATALOG
from merging.recipe import GroupMerge, Recipe
from search.explain.changes import MOST_EXPERTS, changes, neat, unused, weighty
from search.explain.importance import LEAST_TRIALS, importance_of
from search.space import Space, make_space
from tests.search.factories import make_spec, space_of

PRINTS = {"base": "b"} | {f"expert:{name}": f"f-{name}" for name in "abcdefghij"}


def recipe_of(*groups: GroupMerge, experts: str = "abc", **more: Any) -> Recipe:
    return Recipe(
        schema_="mergesearch/recipe/v1", base="b", experts={name: name for name in experts}, groups=groups, **more
    )


def arithmetic(layers: tuple[int, int], **weights: float) -> GroupMerge:
    return GroupMerge(layers=layers, method="task_arithmetic", weights=weights)


def made(recipe: Recipe) -> dict[str, Recipe]:
    return {change.expert or change.kind: change.recipe for change in changes(recipe, PRINTS)}


def test_an_expert_is_left_out_of_all_layers_and_one_that_takes_no_part_is_not() -> None:
    found = made(recipe_of(arithmetic((0, 1), a=0.5, b=0.25, c=0.0), arithmetic((1, 4), a=0.0, b=0.75, c=0.0)))
    assert list(found) == ["b", "a", "flat"], "the largest weights first; nothing to round, and c takes no part"
    assert [group.weights for group in found["b"].groups] == [{"a": 0.5, "b": 0.0, "c": 0.0}, {n: 0.0 for n in "abc"}]
    assert unused(recipe_of(arithmetic((0, 4), a=0.5, b=0.0, c=0.0))) == ("b", "c")


def test_all_layers_alike_is_the_mean_in_proportion_to_the_layers() -> None:
    found = made(recipe_of(arithmetic((0, 1), a=0.5, b=0.25, c=0.0), arithmetic((1, 4), a=0.1, b=0.75, c=0.0)))
    for group, layers in zip(found["flat"].groups, [(0, 1), (1, 4)], strict=True):
        assert group.layers == layers
        assert group.weights == pytest.approx({"a": 0.2, "b": 0.625, "c": 0.0})


def test_all_layers_alike_keeps_modules_apart_and_means_parameters_as_they_are_searched() -> None:
    def ties(layers: tuple[int, int], modules: Any, a: float, density: Any) -> GroupMerge:
        numbers = {"density": density}
        weights = {"a": a, "b": 0.5, "c": 0.5}
        return GroupMerge(layers=layers, modules=modules, method="ties", weights=weights, parameters=numbers)

    kinds = [("attention", 0.2, 0.4), ("mlp", 0.6, 0.8), ("other", 1.0, {"a": 0.5})]
    groups = [ties((at, at + 1), kind, a + 0.1 * at, density) for at in (0, 1) for kind, a, density in kinds]
    groups[1] = groups[1].model_copy(update={"parameters": {"density": 0.4}})
    found = made(recipe_of(*groups))["flat"]
    assert [g.weights["a"] for g in found.groups] == pytest.approx([0.25, 0.65, 1.05] * 2)
    densities = [g.parameters["density"] for g in found.groups[:3]]
    assert densities[0] == 0.4 and densities[1] == pytest.approx(0.6)
    (default,) = (p.default for p in CATALOG["ties"].parameters if p.name == "density")
    assert densities[2] == {"a": 0.5, "b": default, "c": default}


def test_layers_of_different_methods_have_no_mean() -> None:
    other = GroupMerge(layers=(2, 4), method="linear", weights={"a": 1.0, "b": 2.0, "c": 3.0})
    assert "flat" not in made(recipe_of(arithmetic((0, 2), a=0.5, b=0.25, c=0.1), other))


@pytest.mark.parametrize(
    ("number", "found"),
    [(0.0, 0.0), (1.0, 1.0), (1 / 3, 0.33), (1.23456, 1.23), (-0.678, -0.68), (0.0346, 0.035), (0.00123, 0.0012)],
)
def test_two_digits_and_of_small_numbers_two_that_count(number: float, found: float) -> None:
    assert neat(number) == found


def test_weights_and_numbers_are_rounded() -> None:
    numbers = {"density": {"a": 0.123, "b": 0.2}}
    ties = GroupMerge(layers=(0, 4), method="ties", weights={"a": 0.555, "b": 1 / 3, "c": 1.0}, parameters=numbers)
    rounded = made(recipe_of(ties))["rounded"].groups[0]
    assert rounded.weights == {"a": neat(0.555), "b": 0.33, "c": 1.0}
    assert rounded.parameters == {"density": {"a": 0.12, "b": 0.2}}


def test_who_is_all_that_some_layers_have_cannot_be_left_out_where_weights_are_relative() -> None:
    def linear(layers: tuple[int, int], **weights: float) -> GroupMerge:
        return GroupMerge(layers=layers, method="linear", weights=weights)

    recipe = recipe_of(linear((0, 2), a=1.0, b=0.0, c=0.0), linear((2, 4), a=0.5, b=0.5, c=0.0))
    assert weighty(recipe) == ("a", "b") and list(made(recipe)) == ["b", "flat"]
    swapped = GroupMerge(layers=(0, 4), method="layer_swap", weights={"a": 1.0, "b": 0.0, "c": 0.0})
    assert made(recipe_of(swapped)) == {}


def test_of_many_experts_those_with_the_largest_weights_are_left_out() -> None:
    weights = {name: 0.1 * (i + 1) for i, name in enumerate("abcdefghij")}
    found = changes(recipe_of(arithmetic((0, 4), **weights), experts="abcdefghij"), PRINTS)
    assert [c.expert for c in found if c.expert] == list("jihgfedc") and MOST_EXPERTS == 8
    assert len(found) <= MOST_EXPERTS + 2
    alone = changes(recipe_of(arithmetic((0, 4), a=0.512), experts="a"), PRINTS)
    assert [c.kind for c in alone] == ["rounded"]


@pytest.mark.parametrize("name", CATALOG)
def test_the_changes_of_every_method_are_recipes_of_their_own(name: str) -> None:
    row, rng = CATALOG[name], np.random.default_rng(5)
    experts = "abc"[: row.experts[1]]

    def group(layers: tuple[int, int]) -> GroupMerge:
        weights = {} if row.weight is None else {n: float(rng.uniform(0.1, 0.9)) for n in experts}
        if row.weighting == "one_hot":
            weights = {n: float(n == "a") for n in experts}
        if row.weighting == "order":
            weights = {n: float(i) for i, n in enumerate(experts, 1)}
        numbers = {p.name: p.default for p in row.parameters}
        return GroupMerge(layers=layers, method=name, weights=weights, parameters=numbers)

    suite = "5" * 32 if row.artefacts else ""
    recipe = recipe_of(group((0, 1)), group((1, 4)), experts=experts, suite=suite)
    found = changes(recipe, PRINTS)
    kinds = [change.kind for change in found]
    digests = {change.digest for change in found} | {recipe.digest(PRINTS)}
    assert len(digests) == len(found) + 1, "each is another recipe"
    if row.weighting == "per_expert":
        assert kinds == ["without"] * len(experts) * (len(experts) > 1) + ["flat", "rounded"]
    else:
        assert "without" not in kinds


def points(space: Space, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Random points; their parameters are those of one method for all layers."""
    rng, experts = np.random.default_rng(seed), list(space.experts)
    return [{f"task_arithmetic.weight[{n}]": float(rng.uniform(0, 1.0)) for n in experts} for _ in range(count)]


def weight(name: str, where: str = "") -> str:
    return f"task_arithmetic.weight[{name}]{where}"


BOUNDED = {"methods": ["task_arithmetic"], "bounds": {"task_arithmetic.weight": [0.0, 1.0]}}


def test_shares_are_those_of_the_variance_that_each_number_makes() -> None:
    space = space_of(space=BOUNDED)
    told = [(p, 2 * p[weight("a")] - p[weight("b")]) for p in points(space, 300)]
    found = importance_of(space, told, {weight("a"): 0.5, weight("b"): 0.95, weight("c"): 0.5})
    assert found is not None and found.trials == 300 and found.explained > 0.999
    assert found.experts == pytest.approx({"a": 0.8, "b": 0.2, "c": 0.0}, abs=0.01), "4 to 1"
    assert found.parameters == pytest.approx({"task_arithmetic.weight": 1.0}) and found.places == {}
    first, second = found.directions[:2]
    assert first.parameter == weight("a") and first.up == pytest.approx(0.2, abs=0.01)
    assert first.down == pytest.approx(-0.2, abs=0.01)
    assert second.up is None and second.down == pytest.approx(0.1, abs=0.01), "b stands at its end"


def test_a_number_whose_best_is_in_the_middle_is_seen_and_its_step_is_one_down() -> None:
    space = space_of(space=BOUNDED)
    told = [(p, -((p[weight("c")] - 0.5) ** 2)) for p in points(space, 300)]
    found = importance_of(space, told, {weight(n): 0.5 for n in "abc"})
    assert found is not None and found.experts["c"] > 0.98
    best = found.directions[0]
    assert best.up == pytest.approx(-0.01, abs=0.002) and best.down == pytest.approx(-0.01, abs=0.002)


def test_shares_go_to_the_layers_that_matter() -> None:
    space = space_of(space={**BOUNDED, "layers": 2})
    rng = np.random.default_rng(1)
    names = [weight(n, f"@layers{span}") for n in "abc" for span in ("0-1", "2-3")]
    some = [{name: float(rng.uniform()) for name in names} for _ in range(200)]
    found = importance_of(space, [(p, p[names[1]]) for p in some])
    assert found is not None and found.places["layers2-3"] > 0.97 and found.experts["a"] > 0.97
    assert all(d.up is None and d.down is None for d in found.directions), "the winner lies outside"


def test_a_choice_of_methods_has_a_share_and_so_has_what_only_one_asks_for() -> None:
    spec = make_spec(space={"methods": ["task_arithmetic", "ties"]})
    space, rng = make_space(spec, 4), np.random.default_rng(2)
    told = []
    for _ in range(300):
        params: dict[str, Any] = {"method": ["task_arithmetic", "ties"][int(rng.integers(2))]}
        params |= {f"{params['method']}.weight[{n}]": float(rng.uniform(0, 1)) for n in "abc"}
        if params["method"] == "ties":
            params["ties.density"] = float(rng.uniform(0.2, 1.0))
        told.append((params, 0.5 * (params["method"] == "ties") + params.get("ties.density", 0.0)))
    found = importance_of(space, told)
    assert found is not None and found.explained > 0.99
    assert set(found.parameters) >= {"method", "ties.density", "ties.weight", "task_arithmetic.weight"}
    assert found.parameters["method"] + found.parameters["ties.density"] > 0.97
    assert sum(found.parameters.values()) == pytest.approx(1.0)


def test_scores_that_numbers_do_not_tell_explain_nothing() -> None:
    space, rng = space_of(space=BOUNDED), np.random.default_rng(3)
    some = points(space, 200)
    assert importance_of(space, [(p, float(rng.normal())) for p in some]) is None
    assert importance_of(space, [(p, 0.5) for p in some]) is None
    clear = [(p, p[weight("a")]) for p in some]
    assert importance_of(space, clear[: LEAST_TRIALS - 1]) is None
    assert importance_of(space, clear[:LEAST_TRIALS]) is not None
