"""Roles of single tensors; whole architectures are checked in tests/merging/architectures."""

from typing import Any

import pytest

from merging.roles import role, transposed


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (16, 16), "matrix"),
        ("model.layers.0.mlp.gate_up_proj.weight", (48, 16), "matrix"),
        ("model.layers.0.mlp.experts.2.down_proj.weight", (16, 24), "matrix"),
        ("encoder.block.0.layer.1.mlp.router.classifier.weight", (3, 16), "matrix"),
        ("cls.predictions.transform.dense.weight", (16, 16), "matrix"),
        ("electra.embeddings_project.weight", (16, 8), "matrix"),
        ("vision_model.head.attention.in_proj_weight", (48, 16), "matrix"),
        ("model.layers.0.mlp.experts.gate_up_proj", (3, 48, 16), "stack"),
        ("model.layers.0.block_sparse_moe.input_linear.weight", (3, 48, 16), "stack"),
        ("model.embed_tokens.weight", (50, 16), "embedding"),
        ("model.embed_tokens.weight", (64, 16), "embedding"),  # padded beyond the config's vocabulary
        ("bert.embeddings.token_type_embeddings.weight", (2, 16), "embedding"),
        ("transformer.wpe.weight", (32, 16), "embedding"),
        ("cls.predictions.decoder.weight", (50, 16), "embedding"),
        ("classifier.out_proj.weight", (2, 16), "embedding"),
        ("decoder.weight", (50, 16), "embedding"),  # by its rows
        ("decoder.weight", (20, 16), "matrix"),
        ("model.layers.0.mlp.up_proj.weight", (50, 16), "matrix"),  # as many rows as words, but in a layer
        ("model.norm.weight", (16,), "vector"),
        ("logit_scale", (), "vector"),
        ("vit.embeddings.cls_token", (1, 1, 16), "vector"),
        ("model.layers.0.mlp.shared_expert_gate.weight", (1, 16), "vector"),
        ("model.layers.0.self_attn.q_norm.weight", (2, 8), "other"),
        ("model.layers.0.mlp.experts.down_proj_bias", (3, 16), "other"),
        ("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (32, 2), "other"),
        ("backbone.layers.0.mixer.A_log", (24, 4), "other"),
        ("backbone.layers.0.mixer.conv1d.weight", (24, 1, 4), "other"),
        ("vit.embeddings.patch_embeddings.projection.weight", (16, 3, 4, 4), "other"),
        ("transformer.blocks.0.ffn.experts.mlp.w1", (72, 16), "other"),
    ],
)
def test_what_a_tensor_is(name: str, shape: tuple[int, ...], expected: str) -> None:
    assert role(name, shape, {"vocab_size": 50}) == expected


def test_the_vocabulary_of_a_part_counts_and_a_config_may_lack_it() -> None:
    assert role("decoder.weight", (50, 16), {"text_config": {"vocab_size": 50}}) == "embedding"
    assert role("decoder.weight", (50, 16)) == "matrix"


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("h.0.attn.c_attn.weight", {"model_type": "gpt2"}, True),
        ("transformer.h.0.mlp.c_proj.weight", {"model_type": "openai-gpt"}, True),
        ("decoder.transformer.h.0.mlp.c_fc.weight", {"decoder": {"model_type": "gpt2"}}, True),
        ("transformer.h.0.attn.c_attn.weight", {"model_type": "gpt_bigcode"}, False),
        ("transformer.wte.weight", {"model_type": "gpt2"}, False),
        ("model.layers.0.mlp.experts.gate_up_proj", {"model_type": "gpt_oss"}, True),
        ("model.layers.0.mlp.experts.gate_up_proj", {"model_type": "qwen3_5_moe"}, False),
        ("model.layers.0.self_attn.q_proj.weight", {"model_type": "gpt_oss"}, False),
        ("multi_modal_projector.mm_input_projection_weight", {"model_type": "gemma3"}, True),
    ],
)
def test_which_way_a_matrix_lies(name: str, config: dict[str, Any], expected: bool) -> None:
    assert transposed(name, config) == expected
