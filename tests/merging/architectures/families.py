"""One small random model of each architecture, made from transformers' own configs: two layers, width 16."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers
from transformers import AutoConfig

VOCABULARY = 50
SIZES: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "max_position_embeddings": 32,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
OLD = {"n_layer": 2, "n_embd": 16, "n_head": 2, "n_positions": 32}
MOE = {"num_experts": 3, "num_local_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
DEEPSEEK = {
    "num_key_value_heads": 2,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "n_group": 1,
    "topk_group": 1,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 8,
    "first_k_dense_replace": 1,
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
TWO_STACKS = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "decoder_start_token_id": 2,
}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 2}
BART_STACKS = {"model.encoder.layers": 2, "model.decoder.layers": 3}
WHISPER = {"num_mel_bins": 4, "max_source_positions": 8, "max_target_positions": 16}
VISION = {"image_size": 8, "patch_size": 4}
CLIP: dict[str, Any] = {
    "text_config": {**SIZES, "max_position_embeddings": 16, "projection_dim": 8},
    "vision_config": {k: v for k, v in SIZES.items() if "token" not in k} | VISION | {"projection_dim": 8},
    "projection_dim": 8,
}
GEMMA3: dict[str, Any] = {
    "text_config": dict(SIZES),
    "vision_config": CLIP["vision_config"] | {"model_type": "siglip_vision_model"},
    "mm_tokens_per_image": 4,
    "image_token_index": VOCABULARY - 1,
}
GEMMA3_STACKS = {"vision_tower.encoder.layers": 2, "language_model.model.layers": 2}
CONVOLUTIONS = {"conv_dim": [8, 8], "conv_stride": [2, 2], "conv_kernel": [3, 3], "num_feat_extract_layers": 2}
WAV2VEC2 = {**CONVOLUTIONS, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
JAMBA = {
    "num_experts": 2,
    "attn_layer_period": 2,
    "attn_layer_offset": 1,
    "expert_layer_period": 2,
    "expert_layer_offset": 1,
    "mamba_d_state": 4,
}
GRIFFIN = {"lru_width": 16, "attention_window_size": 8, "num_hidden_layers": 3}


@dataclass(frozen=True)
class Family:
    """An architecture.

    Attributes:
        name: transformers' `model_type`.
        task: what AutoModelFor… is called after.
        sizes: config values beside `SIZES`.
        stacks: how many layers each stack has, in the order the layers are counted; empty: one stack, the model's
            first list of modules, of two layers.
        tied: what tie_word_embeddings may be, first as the family has it.
    """

    name: str
    task: str = "CausalLM"
    sizes: Mapping[str, Any] = field(default_factory=dict)
    stacks: Mapping[str, int] = field(default_factory=dict)
    tied: tuple[bool | None, ...] = (None,)

    def build(self, tied: bool | None = None) -> Any:
        """A random model, in float32 and ready to be asked."""
        torch.manual_seed(0)
        known = AutoConfig.for_model(self.name).to_dict()
        values = {k: v for k, v in SIZES.items() if k in known} | dict(self.sizes)
        if tied is not None:
            values["tie_word_embeddings"] = tied
        config = AutoConfig.for_model(self.name, **values)
        return getattr(transformers, f"AutoModel{self.task and 'For' + self.task}").from_config(config).eval()


BOTH = (False, True)
FAMILIES = [
    Family("llama", tied=BOTH),
    Family("mistral"),
    Family("qwen2", tied=BOTH),
    Family("qwen3", tied=BOTH),
    Family("gemma", tied=(True,)),
    Family("gemma2", tied=(True,)),
    Family("gemma3_text", tied=(True, False)),
    Family("gemma3", "ImageTextToText", GEMMA3, GEMMA3_STACKS),
    Family("phi"),
    Family("phi3"),
    Family("gpt_neox", tied=BOTH),
    Family("gpt2", sizes=OLD, tied=(True, False)),
    Family("gpt_bigcode", sizes=OLD),
    Family("gptj", sizes=OLD | {"rotary_dim": 4}),
    Family("opt", sizes={"word_embed_proj_dim": 8, "ffn_dim": 24}, tied=(True, False)),
    Family("bloom", sizes={"n_layer": 2, "n_head": 2}),
    Family("falcon", tied=(True, False)),
    Family("mpt", sizes={"d_model": 16, "n_heads": 2, "n_layers": 2, "max_seq_len": 32, "expansion_ratio": 2}),
    Family("stablelm", sizes={"qk_layernorm": True}),
    Family("cohere", sizes={"use_qk_norm": True}),
    Family("olmo2"),
    Family("granite"),
    Family("smollm3"),
    Family("starcoder2", sizes={"bos_token_id": 1, "eos_token_id": 2}),
    Family("mixtral", sizes=MOE),
    Family("qwen2_moe", sizes=MOE | {"shared_expert_intermediate_size": 8}),
    Family("qwen3_moe", sizes=MOE),
    Family("olmoe", sizes=MOE),
    Family("granitemoe", sizes=MOE),
    Family("gpt_oss", sizes=MOE | {"rope_scaling": None}),
    Family("llama4_text", sizes=MOE | {"intermediate_size_mlp": 24}),
    Family("deepseek_v2", sizes=DEEPSEEK),
    Family("deepseek_v3", sizes=DEEPSEEK),
    Family("mamba", sizes={"state_size": 4}, tied=(True, False)),
    Family("mamba2", sizes={"state_size": 4, "num_heads": 4, "n_groups": 1}),
    Family("jamba", sizes=JAMBA),
    Family("recurrent_gemma", sizes=GRIFFIN, stacks={"model.layers": 3}),
    Family("rwkv", sizes={"attention_hidden_size": 16}),
    Family("bert", "MaskedLM", tied=(True, False)),
    Family("roberta", "MaskedLM"),
    Family("distilbert", "MaskedLM", {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2}),
    Family("modernbert", "MaskedLM", {"cls_token_id": 1, "sep_token_id": 2}),
    Family("electra", "MaskedLM", {"embedding_size": 8}),
    Family("t5", "Seq2SeqLM", T5, {"encoder.block": 2, "decoder.block": 3}),
    Family("bart", "Seq2SeqLM", TWO_STACKS, BART_STACKS),
    Family("whisper", "SpeechSeq2Seq", TWO_STACKS | WHISPER, BART_STACKS),
    Family("wav2vec2", "CTC", WAV2VEC2, {"wav2vec2.encoder.layers": 2}),
    Family("vit", "ImageClassification", VISION, {"vit.encoder.layer": 2}),
    Family("dinov2", "ImageClassification", VISION),
    Family("resnet", "ImageClassification", {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}),
    Family("clip", "", CLIP, {"text_model.encoder.layers": 2, "vision_model.encoder.layers": 2}),
]


def inputs(model: Any) -> dict[str, torch.Tensor]:
    """Something to ask any of the models."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.tensor([[3, 4, 5, 6]])
    pixels = torch.randn(1, 3, 8, 8, generator=generator).to(model.dtype)
    kind = model.config.model_type
    if kind == "clip":
        return {"input_ids": torch.tensor([[3, 4, 5, 2]]), "pixel_values": pixels}
    if kind in {"vit", "dinov2", "resnet"}:
        return {"pixel_values": pixels}
    if kind == "wav2vec2":
        return {"input_values": torch.randn(1, 64, generator=generator).to(model.dtype)}
    if kind == "whisper":
        features = torch.randn(1, WHISPER["num_mel_bins"], 16, generator=generator).to(model.dtype)
        return {"input_features": features, "decoder_input_ids": ids}
    return {"input_ids": ids} | ({"decoder_input_ids": ids} if model.config.is_encoder_decoder else {})


@torch.no_grad()
def answers(model: Any) -> torch.Tensor:
    """The model's logits."""
    found = model(**inputs(model))
    return found.logits_per_image if model.config.model_type == "clip" else found.logits
