"""A recipe: its canonical form, its digest, and every way it can be refused."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from merging.errors import InvalidRecipe
from merging.recipe import MOST_LAYERS, SCHEMA, Recipe, parse_recipe, resolved

PRINTS = {"base": "b0", "expert:code": "e1", "expert:math": "e2"}


def content() -> dict[str, Any]:
    """A recipe of three groups, as parsed from a file."""
    weights = {"code": 0.25, "math": 1.0}
    return {
        "schema": SCHEMA,
        "base": "models/base",
        "experts": {"code": "models/code", "math": "models/math"},
        "seed": 7,
        "groups": [
            {"layers": [0, 2], "modules": "attention", "method": "ties", "weights": weights},
            {"layers": [0, 2], "modules": "mlp", "method": "task_arithmetic", "weights": weights},
            {"layers": [0, 2], "modules": "other", "method": "model_stock"},
            {"layers": [2, 4], "method": "layer_swap", "weights": {"code": 0.0, "math": 1.0}},
        ],
    }


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """The same content after `change` had its way with it."""
    copied = copy.deepcopy(content())
    change(copied)
    return copied


def digest(change: Callable[[dict[str, Any]], Any] = lambda c: None, prints: dict[str, str] = PRINTS) -> str:
    return parse_recipe(changed(change)).digest(prints)


def test_a_recipe_survives_its_canonical_form() -> None:
    recipe = parse_recipe(content())
    text = recipe.to_json()
    assert parse_recipe(json.loads(text)) == recipe
    assert parse_recipe(json.loads(text)).to_json() == text
    assert text.startswith('{"base":"models/base","dtype":null,"experts":{"code":') and ": " not in text
    assert recipe.layer_count == 4


@settings(max_examples=50, deadline=None, derandomize=True, database=None)
@given(st.lists(st.floats(-10, 10), min_size=2, max_size=2), st.floats(1e-6, 1.0), st.integers(-(2**63), 2**63))
def test_every_number_survives_exactly(weights: list[float], density: float, seed: int) -> None:
    group = {"layers": [0, 1], "method": "dare", "parameters": {"density": density}}
    both = dict(zip(("code", "math"), weights, strict=True))
    recipe = parse_recipe(content() | {"seed": seed, "groups": [group | {"weights": both}]})
    again = parse_recipe(json.loads(recipe.to_json()))
    assert again == recipe and again.digest(PRINTS) == recipe.digest(PRINTS)


def test_a_recipe_is_frozen() -> None:
    recipe = parse_recipe(content())
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 1  # type: ignore[misc]


def test_a_digest_is_32_hex_digits_and_pinned_forever() -> None:
    assert digest() == "6a02511e9496379fb512b05208d62d61"


def _rename(c: dict[str, Any]) -> None:
    for holder in (c["experts"], *(group.get("weights", {}) for group in c["groups"])):
        for old, new in (("code", "zeta"), ("math", "alpha")):
            if old in holder:
                holder[new] = holder.pop(old)


def test_a_digest_does_not_know_names() -> None:
    assert digest(_rename, {"base": "b0", "expert:zeta": "e1", "expert:alpha": "e2"}) == digest()


def test_experts_of_one_content_are_told_apart_by_their_weights_not_their_names() -> None:
    twins = {"base": "b0", "expert:code": "e", "expert:math": "e"}
    assert digest(_rename, {"base": "b0", "expert:zeta": "e", "expert:alpha": "e"}) == digest(prints=twins)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(base="/elsewhere", experts={"code": "/a", "math": "/b"}),
        lambda c: c.update(experts=dict(reversed(c["experts"].items()))),
        lambda c: c["groups"].reverse(),
        lambda c: c["groups"][0].update(parameters={"density": 0.3, "lambda": 1.0}),  # the defaults
        lambda c: c["groups"][0].update(parameters={"lambda": 1}),
        lambda c: c["groups"][3].update(modules="all", parameters={}, weights={"math": 1, "code": -0.0}),
        lambda c: c.update(dtype=None),
    ],
)
def test_a_digest_covers_the_merge_and_not_how_it_is_written(change: Callable[[dict[str, Any]], Any]) -> None:
    assert digest(change) == digest()


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c.update(seed=8),
        lambda c: c.update(dtype="float16"),
        lambda c: c["groups"][0].update(method="dare_ties"),
        lambda c: c["groups"][0].update(parameters={"density": 0.31}),
        lambda c: c["groups"][0].update(weights={"code": 1.0, "math": 0.25}),
        lambda c: c["groups"][3].update(layers=[2, 5]),
    ],
)
def test_another_merge_has_another_digest(change: Callable[[dict[str, Any]], Any]) -> None:
    assert digest(change) != digest()


@pytest.mark.parametrize("key", PRINTS)
def test_other_bytes_have_another_digest(key: str) -> None:
    assert digest(prints=PRINTS | {key: "other"}) != digest()


def group(index: int, **values: Any) -> Callable[[dict[str, Any]], Any]:
    """A change of one group."""
    return lambda c: c["groups"][index].update(values)


REFUSED: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (
        lambda c: c.update(schema="mergesearch/recipe/v2"),
        f"schema: 'mergesearch/recipe/v2' is not.*write schema: {SCHEMA}",
    ),
    (lambda c: c.pop("schema"), "schema: is not a known recipe version; write schema"),
    (lambda c: c.pop("base"), "base: is not valid .*Field required.*; see docs/recipe.md"),
    (lambda c: c.update(experts={}), "experts: {} is not valid .*at least 1"),
    (lambda c: c.update(groups=[]), r"groups: \[\] is not valid .*at least 1"),
    (lambda c: c.update(dtype="int8"), "dtype: 'int8' is not valid .*'float32', 'bfloat16' or 'float16'"),
    (lambda c: c.update(seed="x"), "seed: 'x' is not valid .*integer"),
    (lambda c: c.update(sede=3), "sede: 3 is not valid .*Extra inputs"),
    (group(0, densty=0.5), r"groups\[0\].densty: 0.5 is not valid .*Extra inputs"),
    (group(0, modules="heads"), r"groups\[0\].modules: 'heads' is not valid .*'mlp'"),
    (group(0, layers=[-1, 2]), r"groups\[0\].layers\[0\]: -1 is not valid .*greater than or equal to 0"),
    (group(0, layers=[0, 2, 3]), r"groups\[0\].layers: .* is not valid .*at most 2"),
    (group(3, layers=[2, MOST_LAYERS + 1]), r"groups\[3\].layers\[1\]: 10001 is not valid .*less than or equal"),
    (group(3, layers=[4, 4]), r"groups\[3\].layers: \[4, 4\] holds no layer; write \[first, end\)"),
    (group(3, layers=[4, 2]), r"groups\[3\].layers: \[4, 2\] holds no layer"),
    (group(3, layers=[3, 4]), r"groups: 'layer 2 \(attention\)' is covered by no group; cover each exactly once"),
    (group(3, layers=[1, 4]), r"groups: 'layer 1 \(attention\)' is covered by 2 groups; cover each exactly once"),
    (group(2, modules="mlp"), r"groups: 'layer 0 \(mlp\)' is covered by 2 groups"),
    (group(0, method="tiess"), r"groups\[0\].method: 'tiess' is not a merge method; use one of linear, .*ties"),
    (
        group(0, parameters={"densty": 0.5}),
        r"parameters.densty: 0.5 is no parameter of ties; its parameters: lambda, density",
    ),
    (
        group(3, parameters={"density": 0.5}),
        "parameters.density: 0.5 is no parameter of layer_swap; its parameters: scale",
    ),
    (group(0, parameters={"weight": 0.5}), "parameters.weight: 0.5 is no parameter of ties"),
    (group(0, parameters={"density": 0.0}), r"parameters.density: 0.0 is out of range; use a value in \[1e-06, 1\]"),
    (group(0, parameters={"density": 1.5}), "parameters.density: 1.5 is out of range"),
    (group(0, parameters={"density": math.nan}), "parameters.density: nan is out of range"),
    (group(0, parameters={"density": "0.5"}), "parameters.density: '0.5' is not of type float; use a number, e.g. 0.3"),
    (group(0, parameters={"density": True}), "parameters.density: True is not of type float"),
    (group(0, weights={"code": 1.0}), r"groups\[0\].weights: 'math' has no weight; give every expert one \(0 leaves"),
    (group(0, weights={}), r"groups\[0\].weights: 'code' has no weight"),
    (group(0, weights={"code": 1, "math": 1, "law": 1}), "weights: 'law' is no expert; use code, math"),
    (group(0, weights={"code": 1, "math": -0.1}), r"weights.math: -0.1 is out of range; use a value in \[0, 10\]"),
    (group(1, weights={"code": 1, "math": 11}), r"weights.math: 11.0 is out of range; use a value in \[-10, 10\]"),
    (group(1, weights={"code": 1, "math": math.inf}), "weights.math: inf is not finite; use a finite number"),
    (group(1, weights={"code": 1, "math": math.nan}), "weights.math: nan is not finite"),
    (group(0, weights={"code": 0, "math": 0.0}), "weights: .* are all zero; ties needs one above zero"),
    (group(2, weights={"code": 1, "math": 1}), "weights: .* are not used by model_stock; leave them out"),
    (
        group(3, weights={"code": 1, "math": 1}),
        "name more than one expert; layer_swap takes one; method linear averages",
    ),
]


@pytest.mark.parametrize(("change", "message"), REFUSED, ids=[message[:60] for _, message in REFUSED])
def test_what_cannot_work_is_refused_with_key_value_and_remedy(
    change: Callable[[dict[str, Any]], Any], message: str
) -> None:
    with pytest.raises(InvalidRecipe, match=message) as caught:
        parse_recipe(changed(change))
    assert caught.value.key and caught.value.remedy and str(caught.value).startswith(f"{caught.value.key}: ")


@pytest.mark.parametrize("nothing", [None, [], "recipe", 3])
def test_what_is_no_mapping_is_refused(nothing: object) -> None:
    with pytest.raises(InvalidRecipe, match=f"schema: '{type(nothing).__name__}' is not a known recipe version"):
        parse_recipe(nothing)


@pytest.mark.parametrize(
    ("method", "experts", "wants"), [("slerp", 3, "takes 1 to 2 experts and got 3"), ("model_stock", 1, "got 1")]
)
def test_a_method_refuses_a_number_of_experts_it_cannot_take(method: str, experts: int, wants: str) -> None:
    names = [f"e{i}" for i in range(experts)]
    only = {"layers": [0, 1], "method": method, "weights": {} if method == "model_stock" else dict.fromkeys(names, 1)}
    with pytest.raises(InvalidRecipe, match=f"groups.0..method: '{method}' .*{wants}; choose another method"):
        parse_recipe(content() | {"experts": dict.fromkeys(names, "m"), "groups": [only]})


def test_negative_weights_are_allowed_where_they_mean_something() -> None:
    assert parse_recipe(changed(group(1, weights={"code": 1, "math": -0.5}))).groups[1].weights["math"] == -0.5


def test_relative_folders_are_taken_from_the_recipe_s_place(tmp_path: Path) -> None:
    recipe: Recipe = resolved(parse_recipe(changed(lambda c: c.update(base="/abs/base"))), tmp_path)
    assert recipe.base == "/abs/base"
    assert recipe.experts == {name: str(tmp_path.resolve() / "models" / name) for name in ("code", "math")}
    assert recipe.digest(PRINTS) == digest()
