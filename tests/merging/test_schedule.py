"""Ranges cover all layers once, groups cover all tensors once, and the ends go to the first and last range."""

from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from merging.arrangement import arrange
from merging.errors import InvalidInput, InvalidRecipe
from merging.layers import layout
from merging.recipe import SCHEMA, GroupMerge, Override, Recipe
from merging.schedule import GroupKey, assign, group_keys, ranges

NAMES = [
    "model.embed_tokens.weight",
    *(f"model.layers.{i}.{part}.weight" for i in range(4) for part in ("self_attn.q_proj", "mlp.up_proj", "norm")),
    "model.norm.weight",
    "lm_head.weight",
]


@given(st.integers(1, 80), st.data())
def test_ranges_are_contiguous_and_nearly_equal(layer_count: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, layer_count))
    spans = ranges(layer_count, count)
    assert [layer for span in spans for layer in range(*span)] == list(range(layer_count))
    sizes = [end - first for first, end in spans]
    assert len(sizes) == count and max(sizes) - min(sizes) <= 1


def test_each_layer_its_own_range() -> None:
    assert ranges(3, "each") == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("layers", [5, 0, -1])
def test_impossible_number_of_ranges(layers: int) -> None:
    with pytest.raises(InvalidInput, match=f"space.layers: {layers} ranges cannot be cut from 4 layers; use 1 to 4"):
        ranges(4, layers)


def test_group_keys() -> None:
    assert group_keys(4, 2, "together") == (GroupKey((0, 2), "all"), GroupKey((2, 4), "all"))
    split = group_keys(4, 2, "split")
    assert [key.modules for key in split] == ["attention", "mlp", "other"] * 2


def recipe(keys: tuple[GroupKey, ...]) -> Recipe:
    groups = tuple(GroupMerge(layers=k.layers, modules=k.modules, method="linear", weights={"a": 1.0}) for k in keys)
    return Recipe(schema_=SCHEMA, base="base", experts={"a": "a"}, groups=groups)


@pytest.mark.parametrize("modules", ["together", "split"])
@pytest.mark.parametrize("layers", [1, 2, 3, "each"])
def test_every_tensor_has_the_group_of_its_layer(
    layers: int | Literal["each"], modules: Literal["together", "split"]
) -> None:
    keys = group_keys(4, layers, modules)
    places = layout(NAMES, {})
    found = assign(recipe(keys), arrange(recipe(keys), places, ["a"]))
    assert set(found) == set(NAMES)
    for name, index in found.items():
        place, key = places.places[name], keys[index]
        layer = {"before": 0, "after": 3}.get(str(place.layer), place.layer)
        assert isinstance(layer, int) and key.layers[0] <= layer < key.layers[1]
        assert key.modules in ("all", place.module)


def test_recipe_for_another_depth_is_refused() -> None:
    with pytest.raises(InvalidRecipe, match=r"groups: 3 layers are described, but the models have 4; make .*\[0, 4\)"):
        arrange(recipe(group_keys(3, 1, "together")), layout(NAMES, {}), ["a"])


def exceptions(*overrides: Override) -> dict[str, int]:
    """What each tensor's merge is, with one group and these exceptions."""
    made = recipe(group_keys(4, 1, "together")).model_copy(update={"overrides": overrides})
    return dict(assign(made, arrange(made, layout(NAMES, {}), ["a"])))


def an_override(**fields: Any) -> Override:
    return Override(method="linear", weights={"a": 1.0}, **fields)


def test_the_first_exception_that_fits_a_name_wins() -> None:
    found = exceptions(an_override(contains="q_proj"), an_override(contains="layers.1"), an_override(contains="q_"))
    assert found["model.layers.1.self_attn.q_proj.weight"] == 1
    assert found["model.layers.1.mlp.up_proj.weight"] == 2
    assert found["model.layers.2.mlp.up_proj.weight"] == 0


def test_exceptions_hold_within_layers_or_at_an_edge() -> None:
    found = exceptions(an_override(layers=(1, 3), contains="mlp"), an_override(edge="after"))
    assert [found[f"model.layers.{i}.mlp.up_proj.weight"] for i in range(4)] == [0, 1, 1, 0]
    assert found["model.norm.weight"] == found["lm_head.weight"] == 2
    assert found["model.embed_tokens.weight"] == 0
