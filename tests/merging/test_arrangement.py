"""Slices stack, repeat and leave out layers: which tensors the result has, and where each comes from."""

from typing import Any

import pytest

from merging.arrangement import arrange
from merging.errors import InvalidRecipe
from merging.layers import layout
from merging.recipe import SCHEMA, Recipe, parse_recipe

NAMES = [
    "model.embed_tokens.weight",
    *(f"model.layers.{i}.{part}.weight" for i in range(12) for part in ("mlp.1.up_proj", "norm")),
    "lm_head.weight",
]
EXPERTS = ("a", "b")


def recipe(*slices: dict[str, Any], layers: int) -> Recipe:
    group = {"layers": [0, layers], "method": "linear", "weights": {"a": 1.0, "b": 1.0}}
    content = {"schema": SCHEMA, "base": "base", "experts": {"a": "a", "b": "b"}, "groups": [group]}
    return parse_recipe(content | {"slices": list(slices)})


def test_without_slices_every_tensor_is_made_of_its_namesakes() -> None:
    made = arrange(recipe(layers=12), layout(NAMES, {}), EXPERTS)
    assert set(made.parts) == set(NAMES) and made.layer_count == 12 and not made.stacked
    assert all(part.base == name and part.experts == (name, name) for name, part in made.parts.items())


def test_slices_stack_and_repeat_layers() -> None:
    made = arrange(recipe({"layers": [0, 11]}, {"layers": [1, 3]}, layers=13), layout(NAMES, {}), EXPERTS)
    assert made.layer_count == 13 and made.stacked
    assert made.origins == (*range(11), 1, 2)
    part = made.parts["model.layers.12.mlp.1.up_proj.weight"]
    assert part.base == "model.layers.2.mlp.1.up_proj.weight" and part.place.layer == 12
    assert part.place.module == "mlp"
    assert {"model.embed_tokens.weight", "lm_head.weight"} <= set(made.parts)


def test_a_module_s_own_number_is_no_layer() -> None:
    made = arrange(recipe({"layers": [1, 2]}, layers=1), layout(NAMES, {}), EXPERTS)
    assert "model.layers.0.mlp.1.up_proj.weight" in made.parts


def test_an_expert_may_give_other_layers() -> None:
    made = arrange(recipe({"layers": [0, 2], "sources": {"b": [10, 12]}}, layers=2), layout(NAMES, {}), EXPERTS)
    assert made.parts["model.layers.1.norm.weight"].experts == (
        "model.layers.1.norm.weight",
        "model.layers.11.norm.weight",
    )


@pytest.mark.parametrize(
    ("slices", "layers", "message"),
    [
        ([{"layers": [8, 13]}], 5, r"slices\[0\]: \[8, 13\] goes beyond the models' 12 layers"),
        ([{"layers": [0, 2]}], 3, "slices: 2 make 2 layers, but the groups cover 3"),
        ([{"layers": [2, 2]}], 1, r"slices\[0\].layers: \[2, 2\] holds no layer"),
        ([{"layers": [0, 2], "sources": {"c": [0, 2]}}], 2, r"slices\[0\].sources: 'c' is no expert"),
        ([{"layers": [0, 2], "sources": {"b": [0, 3]}}], 2, r"slices\[0\].sources.b: \[0, 3\] is not as long"),
    ],
)
def test_slices_that_cannot_be_made_are_refused(slices: list[dict[str, Any]], layers: int, message: str) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        arrange(recipe(*slices, layers=layers), layout(NAMES, {}), EXPERTS)


def test_two_stacks_of_layers_are_refused() -> None:
    names = [f"{side}.block.{i}.w" for side in ("encoder", "decoder") for i in range(2)]
    with pytest.raises(InvalidRecipe, match="slices: are counted in one stack of layers, and this model has 2"):
        arrange(recipe({"layers": [0, 2]}, layers=2), layout(names, {}), EXPERTS)


def test_leaving_out_the_last_layers_is_a_change_too() -> None:
    made = arrange(recipe({"layers": [0, 11]}, layers=11), layout(NAMES, {}), EXPERTS)
    assert made.stacked and made.layer_count == 11
