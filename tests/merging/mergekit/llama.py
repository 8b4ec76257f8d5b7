"""A small model shaped like a Llama: its layout from names alone, and folders that mergekit and we can open."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from merging.layers import Layout, layout

LAYERS = 12  # above ten: `layers.1` is a part of `layers.10`, and names do not sort as numbers
WIDTH, WIDE, VOCABULARY = 8, 12, 11
_SHAPES: dict[str, tuple[int, ...]] = {
    "input_layernorm": (WIDTH,),
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (WIDTH, WIDTH),
    "self_attn.v_proj": (WIDTH, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "post_attention_layernorm": (WIDTH,),
    "mlp.up_proj": (WIDE, WIDTH),
    "mlp.gate_proj": (WIDE, WIDTH),
    "mlp.down_proj": (WIDTH, WIDE),
}
_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": WIDE,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}


def shapes(rows: int = VOCABULARY) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor, by name, with so many tokens."""
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (rows, WIDTH)}
    for layer in range(LAYERS):
        found |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in _SHAPES.items()}
    return found | {"model.norm.weight": (WIDTH,), "lm_head.weight": (rows, WIDTH)}


def llama_layout(_: Path = Path()) -> Layout:
    """The layout of such a model, whatever folder is asked for."""
    return layout(shapes(), {})


def write_family(
    root: Path,
    experts: Sequence[str],
    dtype: torch.dtype = torch.float32,
    tokens: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Folders `base` and one for each expert; deltas share a part, so that their cosines are about one half.

    Args:
        tokens: the vocabulary of each model; if given, each folder has a tokenizer.
    """
    generator = torch.Generator().manual_seed(len(experts))

    def noise(rows: int = VOCABULARY) -> dict[str, Tensor]:
        return {name: torch.randn(shape, generator=generator) for name, shape in shapes(rows).items()}

    base, shared = noise(), noise()
    _save(root / "base", base, dtype)
    for expert in experts:
        own = noise()
        _save(root / expert, {n: base[n] + 0.05 * (shared[n] + own[n]) for n in base}, dtype)
    for name, words in (tokens or {}).items():
        wide = noise(len(words))
        inside = load_file(root / name / "model.safetensors")
        _save(root / name, wide | {n: t for n, t in inside.items() if t.shape == wide[n].shape}, dtype, words)


def _save(folder: Path, tensors: dict[str, Tensor], dtype: torch.dtype, tokens: Sequence[str] = ()) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.to(dtype) for name, tensor in tensors.items()}, folder / "model.safetensors")
    rows = len(tokens) or VOCABULARY
    stored = str(dtype).removeprefix("torch.")
    config = _CONFIG | {"num_hidden_layers": LAYERS, "dtype": stored, "vocab_size": rows}
    (folder / "config.json").write_text(json.dumps(config))
    if tokens:
        (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(tokens)))
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 64}
        (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def _tokenizer(tokens: Sequence[str]) -> dict[str, Any]:
    """The smallest tokenizer.json: whole words, cut at spaces."""
    model = {"type": "WordLevel", "vocab": {token: i for i, token in enumerate(tokens)}, "unk_token": tokens[0]}
    absent = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    return {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"}, "model": model} | absent
