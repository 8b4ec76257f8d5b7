"""Layers and modules are read from names: checked on what transformers itself calls its tensors, family by family."""

from typing import Any

import pytest
import torch
import transformers
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM

from merging.layers import Place, layout

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "vocab_size": 32,
    "head_dim": 8,
    "pad_token_id": 0,
}
OPT = {"word_embed_proj_dim": 8, "ffn_dim": 32, "do_layer_norm_before": True}
CAUSAL: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {},
    "phi": {},
    "phi3": {},
    "gpt_neox": {},
    "gpt2": {"n_layer": 3, "n_embd": 16, "n_head": 2},
    "opt": OPT,
    "mixtral": {"num_local_experts": 2},
    "bloom": {"n_layer": 3, "n_head": 2},
    "falcon": {},
}


def tensors(auto: Any, family: str, **sizes: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the config of a tiny model of the family, without memory."""
    known = AutoConfig.for_model(family).to_dict()
    config = AutoConfig.for_model(family, **{k: v for k, v in (SIZES | sizes).items() if k in known or k in sizes})
    with torch.device("meta"):
        state = auto.from_config(config).state_dict()
    return state, config.to_dict()


@pytest.mark.parametrize("family", CAUSAL)
def test_causal_families(family: str) -> None:
    state, config = tensors(AutoModelForCausalLM, family, **CAUSAL[family])
    found = layout(state, config)
    assert found.layer_count == 3
    for name, place in found.places.items():
        if isinstance(place.layer, int):
            assert f".{place.layer}." in name
            is_norm = "norm" in name or ".ln_" in name
            expected = "other" if is_norm else "attention" if "att" in name else "mlp"
            assert place.module == expected, name
        else:
            head = name.startswith(("lm_head", "embed_out"))
            final = "norm" in name.rsplit(".", 2)[-2] and "embeddings" not in name
            after = head or final or "ln_f" in name or "project_out" in name
            assert place == Place("after" if after else "before", "other"), name
    assert {p.module for p in found.places.values()} == {"attention", "mlp", "other"}
    assert {"before", "after", 0, 1, 2} == {p.layer for p in found.places.values()}


def test_bert_and_its_head() -> None:
    state, config = tensors(AutoModelForMaskedLM, "bert")
    found = layout(state, config)
    assert found.layer_count == 3
    places = found.places
    assert places["bert.embeddings.LayerNorm.weight"] == Place("before", "other")
    assert places["bert.encoder.layer.1.attention.self.query.bias"] == Place(1, "attention")
    assert places["bert.encoder.layer.1.attention.output.dense.weight"] == Place(1, "attention")
    assert places["bert.encoder.layer.1.attention.output.LayerNorm.weight"] == Place(1, "other")
    assert places["bert.encoder.layer.2.intermediate.dense.weight"] == Place(2, "mlp")
    assert places["bert.encoder.layer.2.output.dense.bias"] == Place(2, "mlp")
    assert places["cls.predictions.transform.dense.weight"] == Place("after", "other")


def test_vit() -> None:
    state, config = tensors(AutoModel, "vit", image_size=8, patch_size=4)
    found = layout(state, config)
    assert found.layer_count == 3
    assert found.places["embeddings.cls_token"] == Place("before", "other")
    assert found.places["layernorm.weight"] == Place("after", "other")
    assert {p.module for p in found.places.values() if p.layer == 1} == {"attention", "mlp", "other"}


def test_t5_stacks_stand_one_after_the_other() -> None:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 2}
    state, config = tensors(transformers.AutoModelForSeq2SeqLM, "t5", **sizes)
    found = layout(state, config)
    assert found.layer_count == 5
    assert found.places["shared.weight"] == Place("before", "other")
    assert found.places["encoder.block.2.layer.0.SelfAttention.q.weight"] == Place(2, "attention")
    assert found.places["encoder.block.2.layer.1.DenseReluDense.wi.weight"] == Place(2, "mlp")
    assert found.places["decoder.block.0.layer.1.EncDecAttention.k.weight"] == Place(3, "attention")
    assert found.places["decoder.block.1.layer.2.layer_norm.weight"] == Place(4, "other")
    assert found.places["decoder.final_layer_norm.weight"] == Place("after", "other")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("model.layers.1.mlp.experts.5.gate_proj.weight", Place(1, "mlp")),
        ("model.layers.1.block_sparse_moe.experts.0.w2.weight", Place(1, "mlp")),
        ("model.layers.1.self_attn.q_proj.bias", Place(1, "attention")),
        ("model.layers.1.self_attn.q_norm.weight", Place(1, "other")),
        ("model.layers.1.post_attention_layernorm.weight", Place(1, "other")),
        ("h.0.attn.c_attn.bias", Place(0, "attention")),
        ("backbone.layers.1.mixer.in_proj.weight", Place(1, "attention")),
        ("backbone.layers.1.mixer.A_log", Place(1, "attention")),
        ("backbone.layers.1.mixer.norm.weight", Place(1, "other")),
        ("backbone.layers.1.mixer.experts.0.up_proj.weight", Place(1, "mlp")),
        ("backbone.layers.1.mixer.gate.weight", Place(1, "mlp")),
        ("model.layers.1.mamba.x_proj.weight", Place(1, "attention")),
        ("model.layers.1.conv.in_proj.weight", Place(1, "attention")),
        ("model.layers.1.temporal_block.linear_x.weight", Place(1, "attention")),
        ("rwkv.blocks.1.ln1.weight", Place(1, "other")),
        ("rwkv.ln_out.weight", Place("after", "other")),
        ("wav2vec2.feature_extractor.conv_layers.0.conv.weight", Place("before", "other")),
        ("wav2vec2.feature_projection.layer_norm.weight", Place("before", "other")),
        ("final_logits_bias", Place("after", "other")),
        ("vocab_transform.weight", Place("after", "other")),
        ("generator_predictions.dense.weight", Place("after", "other")),
        ("decoder.bias", Place("after", "other")),
        ("resnet.encoder.stages.1.layers.0.layer.0.convolution.weight", Place(1, "other")),
        ("score.weight", Place("after", "other")),
        ("classifier.weight", Place("after", "other")),
        ("multi_modal_projector.linear_1.weight", Place("before", "other")),
    ],
)
def test_single_names(name: str, place: Place) -> None:
    assert layout([name], {}).places[name] == place


def test_unknown_stack_is_recognised_by_the_configs_count() -> None:
    names = [f"body.units.{i}.attn.w" for i in range(4)] + ["side.0.weight", "embed.weight"]
    found = layout(names, {"num_layers": 4})
    assert found.layer_count == 4
    assert found.places["side.0.weight"].layer == "before"


def test_model_without_layers_counts_as_one() -> None:
    found = layout(["embed.weight", "head.weight"], {})
    assert found.layer_count == 1
    assert [p.layer for p in found.places.values()] == ["before", "after"]
