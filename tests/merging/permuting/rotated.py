"""Models whose residual stream is another model's, rotated and scaled: made on the live modules, by the book."""

import copy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from merging.checkpoint import Checkpoint


def rotation_of(width: int, seed: int = 0) -> Tensor:
    """A random orthogonal matrix, float64 [width, width]."""
    return torch.linalg.qr(torch.randn((width, width), generator=torch.Generator().manual_seed(seed)).double()).Q


@torch.no_grad()
def rotated(model: Any, rotation: Tensor, scale: float = 1.0, offset: float = 0.0) -> Any:
    """A copy whose stream is y = scale · rotation · x where the model's is x, and which computes the same.

    Args:
        offset: what the norms add to their weight.
    """
    made = copy.deepcopy(model)
    if model.config.tie_word_embeddings:
        made.config.tie_word_embeddings = False
        made.lm_head.weight = nn.Parameter(made.lm_head.weight.clone())

    def read(norm: Any, linears: list[Any]) -> None:
        for linear in linears:
            linear.weight.copy_(linear.weight.double() * (norm.weight.double() + offset) @ rotation.mT)
        norm.weight.fill_(1.0 - offset)

    def write(linear: Any) -> None:
        linear.weight.copy_(scale * rotation @ linear.weight.double())
        if linear.bias is not None:
            linear.bias.copy_(scale * rotation @ linear.bias.double())

    made.model.embed_tokens.weight.copy_(scale * made.model.embed_tokens.weight.double() @ rotation.mT)
    for layer in made.model.layers:
        projections = [name for name in ("qkv_proj", "q_proj", "k_proj", "v_proj") if hasattr(layer.self_attn, name)]
        read(layer.input_layernorm, [getattr(layer.self_attn, name) for name in projections])
        gates = [name for name in ("gate_up_proj", "gate_proj", "up_proj") if hasattr(layer.mlp, name)]
        read(layer.post_attention_layernorm, [getattr(layer.mlp, name) for name in gates])
        write(layer.self_attn.o_proj)
        write(layer.mlp.down_proj)
    read(made.model.norm, [made.lm_head])
    return made


def offset(name: str) -> float:
    """What a decoder of that name adds to the scales that its norms store."""
    return 1.0 if name == "gemma" else 0.0


def checkpoint(model: Any, folder: Path, key: str = "model", size: str = "1GB") -> Checkpoint:
    """The model, saved and opened."""
    model.save_pretrained(folder, max_shard_size=size)
    return Checkpoint(folder, key)
