"""Which permutations are found in which models, and which models are refused."""

from typing import Any

import pytest

from merging.errors import InvalidModel, InvalidRecipe
from merging.permuting.decoder import specify
from merging.permuting.specification import Site
from tests.merging.factories import tiny_llama
from tests.merging.permuting.decoders import DECODERS, decoder, shapes, specification, state

CONFIG = {"hidden_size": 8, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 3}


def llama_shapes(layers: int = 1) -> dict[str, tuple[int, ...]]:
    """The shapes of a Llama that CONFIG describes, with 5 hidden units and 7 tokens."""
    made: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (7, 8), "model.norm.weight": (8,)}
    made["lm_head.weight"] = (7, 8)
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        made |= {f"{prefix}self_attn.{name}_proj.weight": (rows, 8) for name, rows in (("q", 12), ("k", 6), ("v", 6))}
        made |= {f"{prefix}mlp.{name}_proj.weight": (5, 8) for name in ("gate", "up")}
        made[f"{prefix}self_attn.o_proj.weight"], made[f"{prefix}mlp.down_proj.weight"] = (8, 12), (8, 5)
        made |= {f"{prefix}{name}_layernorm.weight": (8,) for name in ("input", "post_attention")}
    return made


def test_the_units_of_a_llama() -> None:
    made = specify(llama_shapes(), CONFIG, ["all"]).named
    attention, mlp = "model.layers.0.self_attn.", "model.layers.0.mlp."
    assert set(made["layers.0.mlp"].sites) == {
        Site(f"{mlp}gate_proj.weight", 0, 0, 1, 5, 1),
        Site(f"{mlp}up_proj.weight", 0, 0, 1, 5, 1),
        Site(f"{mlp}down_proj.weight", 1, 0, 1, 5, 1),
    }
    assert set(made["layers.0.heads"].sites) == {
        Site(f"{attention}q_proj.weight", 0, 0, 1, 2, 6),  # two query heads of three channels
        Site(f"{attention}k_proj.weight", 0, 0, 1, 2, 3),
        Site(f"{attention}v_proj.weight", 0, 0, 1, 2, 3),
        Site(f"{attention}o_proj.weight", 1, 0, 1, 2, 6),
    }
    assert set(made["layers.0.heads.1.queries"].sites) == {
        Site(f"{attention}q_proj.weight", 0, 6, 1, 2, 3),
        Site(f"{attention}o_proj.weight", 1, 6, 1, 2, 3),
    }
    assert set(made["layers.0.heads.1.channels"].sites) == {
        Site(f"{attention}v_proj.weight", 0, 3, 1, 3, 1),
        Site(f"{attention}o_proj.weight", 1, 6, 2, 3, 1),  # the columns of each query head
    }
    residual = {site.tensor: site.axis for site in made["residual"].sites}
    assert set(residual) == set(llama_shapes())
    assert {name for name, axis in residual.items() if not axis} == {
        f"{attention}o_proj.weight",
        f"{mlp}down_proj.weight",
        "model.norm.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
    }


@pytest.mark.parametrize(
    ("parts", "kinds"),
    [
        (["mlp"], {"mlp"}),
        (["attention"], {"heads", "queries", "channels"}),
        (["residual"], {"residual"}),
        (["residual", "mlp"], {"mlp", "residual"}),
        (["all"], {"mlp", "heads", "queries", "channels", "residual"}),
    ],
)
def test_parts_are_chosen(parts: list[str], kinds: set[str]) -> None:
    assert {each.kind for each in specify(llama_shapes(2), CONFIG, parts).permutations} == kinds
    assert {each.kind for each in specify(llama_shapes(2), {}).permutations} == {"mlp"}  # the default; needs no config


@pytest.mark.parametrize("name", DECODERS)
def test_a_permutation_for_every_set_of_units(name: str) -> None:
    model = decoder(name)
    made, groups = specification(model, "all"), model.config.num_key_value_heads
    assert len(made.permutations) == 3 * (2 + 2 * groups) + 1
    assert set(made.sites) >= {name for name in state(model) if not name.endswith(("_norm.weight", ".bias"))}


def test_layers_are_numbers() -> None:
    made = specify(llama_shapes(11), CONFIG, ["mlp"])
    assert [each.name for each in made.permutations] == [f"layers.{i}.mlp" for i in range(11)]
    assert all(site.tensor.startswith("model.layers.1.") for site in made.named["layers.1.mlp"].sites)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.0.mlp.experts.gate_up_proj", (4, 10, 8)),
        ("model.layers.0.mlp.gate.weight", (4, 8)),
        ("model.layers.0.mlp.ffn_sub_norm.weight", (5,)),
        ("model.layers.0.self_attn.sinks", (4,)),
        ("model.layers.0.self_attn.q_a_proj.weight", (4, 8)),
        ("model.vision_tower.layers.0.mlp.fc1.weight", (5, 8)),
        ("transformer.h.0.mlp.c_fc.weight", (8, 5)),
        ("score.bias", (2,)),
    ],
)
def test_what_is_not_understood_is_named(name: str, shape: tuple[int, ...]) -> None:
    for parts in ("mlp", "attention", "residual"):
        with pytest.raises(InvalidModel, match="is not understood") as error:
            specify(llama_shapes() | {name: shape}, CONFIG, [parts], key="models.base")
        assert error.value.key == "models.base" and error.value.value == name


def changed(**shapes: Any) -> dict[str, Any]:
    return {f"model.layers.0.{name.replace('__', '.')}.weight": shape for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("mlp", changed(mlp__up_proj=(6, 8))),
        ("mlp", changed(mlp__gate_proj=(5,))),
        ("attention", changed(self_attn__q_proj=(9, 8))),
        ("attention", changed(self_attn__k_proj=(3, 8))),
        ("attention", changed(self_attn__o_proj=(8, 9))),
        ("attention", changed(self_attn__q_norm=(4, 3))),
        ("attention", changed(self_attn__k_norm=(4,))),
        ("residual", changed(self_attn__o_proj=(9, 12))),
        ("residual", changed(input_layernorm=(9,))),
        ("residual", {"model.embed_tokens.weight": (7, 4)}),
    ],
)
def test_shapes_that_contradict_the_config_are_refused(part: str, change: dict[str, Any]) -> None:
    with pytest.raises(InvalidModel, match="has the shape") as error:
        specify(llama_shapes() | change, CONFIG, [part])
    assert error.value.value == next(iter(change))


@pytest.mark.parametrize(("part", "gone"), [("mlp", "up"), ("mlp", "down"), ("attention", "v"), ("attention", "o")])
def test_a_missing_projection_is_refused(part: str, gone: str) -> None:
    module = "mlp" if part == "mlp" else "self_attn"
    left = llama_shapes(2)
    del left[f"model.layers.1.{module}.{gone}_proj.weight"]
    with pytest.raises(InvalidModel, match=f"layers.1.*has no {gone}_proj.weight"):
        specify(left, CONFIG, [part])


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "num_attention_heads"),
        (CONFIG | {"num_key_value_heads": 3}, "cannot be shared out"),
        (CONFIG | {"num_attention_heads": "four"}, "is no number"),
        (CONFIG | {"head_dim": 0}, "is no number"),
    ],
)
def test_a_config_without_heads_is_refused(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidModel, match=said):
        specify(llama_shapes(), config, ["attention"])


def test_heads_have_defaults() -> None:
    model = tiny_llama()
    config = {"hidden_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": None}
    assert specify(shapes(state(model)), config, ["attention"]) == specification(model, "attention")


def test_no_layers_and_no_parts_are_refused() -> None:
    with pytest.raises(InvalidModel, match="has no layers"):
        specify({"model.norm.weight": (8,)}, CONFIG, ["residual"])
    for parts in (["layers"], []):
        with pytest.raises(InvalidRecipe, match="use mlp, attention, residual, or all"):
            specify(llama_shapes(), CONFIG, parts)
