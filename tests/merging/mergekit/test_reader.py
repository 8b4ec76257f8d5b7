"""Configurations as people write them, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from merging.errors import InvalidRecipe
from merging.mergekit import read
from merging.recipe import GroupMerge, Override, Recipe, Slice
from tests.merging.mergekit.llama import LAYERS, llama_layout

ROOT = Path("/models")


def reading(**content: Any) -> Recipe:
    """The recipe of a configuration, its models under /models."""
    return read(content, ROOT, llama_layout)


def ties(*weights: Any, **more: Any) -> dict[str, Any]:
    """A TIES merge of experts `a`, `b` …"""
    models = [{"model": chr(ord("a") + i), "parameters": {"weight": weight}} for i, weight in enumerate(weights)]
    return {"merge_method": "ties", "base_model": "base", "models": models} | more


def test_one_merge_for_all_is_one_group() -> None:
    recipe = reading(**ties(0.4, 0.6, parameters={"density": 0.5, "lambda": 1.2}, out_dtype="bfloat16"))
    weights, parameters = {"a": 0.4, "b": 0.6}, {"density": 0.5, "lambda": 1.2}
    assert recipe.groups == (GroupMerge(layers=(0, LAYERS), method="ties", weights=weights, parameters=parameters),)
    assert recipe.overrides == () and recipe.slices == () and recipe.dtype == "bfloat16"
    assert recipe.base == "/models/base" and recipe.experts == {"a": "/models/a", "b": "/models/b"}


def test_a_gradient_gives_every_layer_its_own_group_and_the_head_the_first_value() -> None:
    recipe = reading(**ties([0, 1], 1, parameters={"density": 0.5}))
    assert [g.layers for g in recipe.groups] == [(i, i + 1) for i in range(LAYERS)]
    assert [g.weights["a"] for g in recipe.groups] == pytest.approx([i / 11 for i in range(LAYERS)])
    assert recipe.overrides == (
        Override(edge="after", method="ties", weights={"a": 0.0, "b": 1.0}, parameters={"density": 0.5}),
    )


def test_what_modules_can_say_is_said_by_modules() -> None:
    recipe = reading(
        **ties(1, 1, parameters={"density": [{"filter": "self_attn", "value": 0.2}, {"filter": "mlp", "value": 0.6}]})
    )
    found = {g.modules: g.parameters.get("density") for g in recipe.groups}
    assert found == {"attention": 0.2, "mlp": 0.6, "other": 1.0} and recipe.overrides == ()


def test_what_they_cannot_becomes_an_override_with_the_same_filter() -> None:
    recipe = reading(**ties([{"filter": "k_proj", "value": 0.5}, {"value": 1}], 1, parameters={"density": 0.9}))
    assert len(recipe.groups) == 1
    (override,) = recipe.overrides
    assert (override.contains, override.layers, override.weights["a"]) == ("k_proj", (0, LAYERS), 0.5)


def test_a_filter_for_the_head_reaches_the_head_alone() -> None:
    recipe = reading(**ties([{"filter": "lm_head", "value": 0.5}, {"value": 1}], 1, parameters={"density": 0.9}))
    assert [(o.contains, o.edge, o.weights["a"]) for o in recipe.overrides] == [("lm_head", "after", 0.5)]


def test_models_may_keep_different_shares() -> None:
    recipe = reading(**ties(1, 1, parameters={"density": [{"filter": "none", "value": 0.1}, {"value": 0.4}]}))
    assert recipe.groups[0].parameters == {"density": 0.4}
    own = [{"model": "a", "parameters": {"weight": 1, "density": 0.2}}, {"model": "b", "parameters": {"weight": 1}}]
    recipe = reading(merge_method="ties", base_model="base", models=own)
    assert recipe.groups[0].parameters == {"density": {"a": 0.2, "b": 1.0}}


def test_layers_with_no_weight_at_all_are_the_base() -> None:
    recipe = reading(**ties([0, 1], [0, 1], parameters={"density": 0.5}))
    assert recipe.groups[0].method == "layer_swap" and not any(recipe.groups[0].weights.values())


def test_slerp_lies_between_the_base_model_and_the_other() -> None:
    models = [{"model": "a"}, {"model": "b"}]
    recipe = reading(merge_method="slerp", base_model="b", models=models, parameters={"t": 0.25})
    assert recipe.base == "/models/b" and recipe.groups[0].weights == {"a": 0.25, "b": 0.75}


def test_passthrough_stacks_layers() -> None:
    slices = [
        {"sources": [{"model": "a", "layer_range": [0, 8]}]},
        {"sources": [{"model": "b", "layer_range": [4, 10], "parameters": {"scale": 0.5}}]},
        {"sources": [{"model": "b", "layer_range": [10, 12]}]},
    ]
    recipe = reading(merge_method="passthrough", slices=slices)
    assert recipe.slices == (Slice(layers=(0, 8)), Slice(layers=(4, 12))) and recipe.base == "/models/a"
    assert [(g.layers, g.parameters.get("scale"), g.weights["b"]) for g in recipe.groups] == [
        ((0, 8), None, 0.0),
        ((8, 14), 0.5, 1.0),
        ((14, 16), None, 1.0),
    ]


def test_slices_that_leave_every_layer_in_place_are_no_slices() -> None:
    parts = [
        {"sources": [{"model": m, "layer_range": span, "parameters": {"weight": w}} for m, w in (("a", 1), ("b", x))]}
        for span, x in (([0, 4], 1), ([4, 12], 3))
    ]
    recipe = reading(merge_method="linear", slices=parts)
    assert recipe.slices == () and [g.weights["b"] for g in recipe.groups] == [1.0, 3.0]


def test_models_of_one_name_get_different_ones() -> None:
    models = [{"model": f"{x}/base", "parameters": {"weight": 1}} for x in ("v1", "v2", "v3")]
    recipe = reading(merge_method="linear", models=models, tokenizer_source="v3/base")
    assert recipe.experts == {"base-2": "/models/v1/base", "base-3": "/models/v2/base", "base-4": "/models/v3/base"}
    assert recipe.tokenizer == "base-4"


def test_mergekits_ways_become_named_options() -> None:
    def parameters(method: str, count: int = 2, **shared: Any) -> dict[str, Any]:
        models = [{"model": chr(ord("a") + i)} for i in range(count)]
        return dict(
            reading(merge_method=method, base_model="base", models=models, parameters=shared).groups[0].parameters
        )

    assert parameters("dare_linear", weight=1, density=0.3) == {"density": 0.3, "rescale": "l1"}
    assert parameters("dare_ties", weight=1, density=0.5, rescale=False) == {"rescale": "none"}
    assert parameters("della", weight=1, density=0.4, epsilon=0.1) == {"density": 0.4, "epsilon": 0.25, "rescale": "l1"}
    assert parameters("model_stock", filter_wise=True) == {"clamp": False, "over": "row"}
    assert parameters("nuslerp", weight=1, nuslerp_flatten=False) == {"over": "row"}


@pytest.mark.parametrize(
    ("source", "found"), [({"tokenizer_source": "union"}, "union"), ({"tokenizer": {"source": "b"}}, "b")]
)
def test_the_tokenizers_source_is_kept(source: dict[str, Any], found: str) -> None:
    assert reading(**ties(1, 1), **source).tokenizer == found


REFUSED: list[tuple[dict[str, Any], str]] = [
    (ties(1, densty=0.5), r"densty: 0.5 is not read from a mergekit file"),
    (ties(1, parameters={"densty": 0.5}), r"parameters.densty: 0.5 is no parameter of mergekit's ties; .*density"),
    (ties(1, merge_method="dare-ties"), r"merge_method: 'dare-ties' .*dare_ties"),
    (ties(1, models=[]), "models: or slices must be given"),
    (ties(1, base_model=None), "base_model: is missing, and ties needs it"),
    (ties("much"), r"weight: 'much' is not of type float"),
    (ties({"filter": "mlp", "value": 1}), r"parameters.weight: is given for no model or not for"),
    (ties(1, dtype="float64"), "dtype: 'float64' is not what results are stored in"),
    (ties(1, chat_template="chatml"), "chat_template: 'chatml'"),
    (ties(1, tokenizer={"source": "union", "tokens": {}}), "tokenizer.tokens: .*rows of tokens"),
    (ties(1, tokenizer_source="other"), "tokenizer.source: 'other' is no model of this merge"),
    (ties(1, parameters={"rescale": True}), "parameters.rescale: True is not done by our ties"),
    (ties(1, modules={}), "modules: .*at the top"),
    (ties(1, models=[{"model": "a+lora"}]), r"models\[0\].model: 'a\+lora' .*adapters and revisions"),
    (ties(1, models=[{"model": "a", "parameters": {"lambda": 1}}]), "lambda: 1 is one value for all models"),
    (ties(1, models=[{"model": "a"}, {"model": "a"}]), "models: 'a' is listed twice"),
    ({"merge_method": "slerp", "base_model": "a", "models": [{"model": "a"}], "parameters": {"t": 1}}, "takes 2"),
    (
        {
            "merge_method": "slerp",
            "base_model": "a",
            "models": [{"model": "a"}, {"model": "b"}],
            "parameters": {"t": 2},
        },
        "parameters.t: 2.0 lies beyond",
    ),
    (ties(1, merge_method="della", parameters={"density": 0.9}), "epsilon: 0.15 takes density 0.9 out of"),
    (
        {
            "merge_method": "passthrough",
            "slices": [{"sources": [{"model": "a", "layer_range": [8, 14]}]}],
        },
        "slices.*goes beyond the models' 12 layers",
    ),
]


@pytest.mark.parametrize(("content", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_refused(content: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidRecipe, match=message):
        reading(**content)


def test_no_mapping_is_no_configuration() -> None:
    with pytest.raises(InvalidRecipe, match="config: 'list' is no mapping"):
        read(["merge_method"], ROOT, llama_layout)


@pytest.mark.parametrize("span", [[8, 4], [3, 3]])
def test_a_range_that_holds_no_layer_is_named_by_its_own_key(span: list[int]) -> None:
    sources = [{"model": "a", "layer_range": span}]
    with pytest.raises(InvalidRecipe, match="holds no layer") as caught:
        reading(merge_method="passthrough", slices=[{"sources": sources}])
    assert caught.value.key == "slices[0].sources[0].layer_range"


def test_a_misspelt_filter_is_named_not_the_parameter() -> None:
    with pytest.raises(InvalidRecipe, match="filtr"):
        reading(**ties(1, 1, parameters={"density": [{"filtr": "mlp", "value": 0.3}, {"value": 1}]}))
