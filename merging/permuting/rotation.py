"""Turns the residual stream of a decoder by a rotation, in its weights: the same function in other coordinates.

A norm divides by the length of the stream, which no rotation changes, and multiplies each coordinate, which a rotation
would mix. So each norm's scale goes into the matrices that read what it gives, and what is left of the norm commutes
with every rotation (SliceGPT, arXiv:2401.15024; QuaRot, arXiv:2404.00456). Only decoders whose norms stand before
what reads them and have no mean to subtract can be turned so: no LayerNorm, and no norms over a layer's output (Gemma 2
and 3, OLMo 2), whose scales no matrix could take in.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from merging.checkpoint import Checkpoint
from merging.errors import InvalidModel
from merging.permuting.stitching import Turn

# How a norm scales: by what is added to its weight. Checked with these models; others may do otherwise.
_OFFSETS: Mapping[str, float] = {
    "gemma": 1.0,
    "llama": 0.0,
    "mistral": 0.0,
    "phi3": 0.0,
    "qwen2": 0.0,
    "qwen3": 0.0,
}
_BEFORE_ATTENTION, _BEFORE_MLP, _LAST = "input_layernorm", "post_attention_layernorm", "norm"
_NORMS = (_BEFORE_ATTENTION, _BEFORE_MLP, _LAST)
_READERS: Mapping[str, str] = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj", "qkv_proj"), _BEFORE_ATTENTION),
    **dict.fromkeys(("gate_proj", "up_proj", "gate_up_proj"), _BEFORE_MLP),
    "lm_head": _LAST,
}
_WRITERS = ("o_proj", "down_proj")
_EMBEDDING = "embed_tokens"
EMBEDDING, HEAD = f"{_EMBEDDING}.weight", "lm_head.weight"


def require_turnable(model: Checkpoint) -> None:
    """See that the model's stream can be turned, as far as its config says.

    Raises:
        InvalidModel: it cannot, or nobody has looked.
    """
    kind = model.config.get("model_type")
    if kind not in _OFFSETS:
        problem = "is none of the models whose residual stream can be turned in their weights"
        remedy = f"use a model of {', '.join(_OFFSETS)}"
        raise InvalidModel(f"{model.key}: model_type", kind, problem, remedy)


def turned(model: Checkpoint, turn: Turn, name: str) -> Tensor:
    """One tensor of the model with its stream in other coordinates: those that `turn` leads from to the model's own.

    With all tensors so, the stream is rotationᵀ · y / scale wherever the model's was y, and the logits are the same;
    but for the small number under the norms' root, which counts scale² times as much. All norms scale by 1.

    Args:
        model: one that `require_turnable` lets pass, with its modules called as Llama's.
        name: of a tensor of its, or `lm_head.weight` where the head is tied to the embedding.

    Returns:
        float64 [*shape].
    """
    module = _module(name)
    if module in _NORMS:
        return torch.full(model.entry(name).shape, 1 - offset(model), dtype=torch.float64)
    tensor = folded(model, name)
    if norm_before(model, name) is not None:
        return tensor @ turn.rotation
    if module == _EMBEDDING:
        return tensor @ turn.rotation / turn.scale
    if module in _WRITERS:
        return turn.rotation.mT @ tensor / turn.scale
    return tensor


def folded(model: Checkpoint, name: str) -> Tensor:
    """One tensor of the model with the scale of the norm before it, if it reads one: what it does to a normed stream.

    Args:
        model, name: as `turned` has them.

    Returns:
        float64 [*shape].
    """
    tensor, norm = model.tensor(_source(model, name)).double(), norm_before(model, name)
    return tensor if norm is None else tensor * (model.tensor(norm).double() + offset(model))


def norm_before(model: Checkpoint, name: str) -> str | None:
    """The weight of the norm whose output a tensor reads, by name; None: it reads no norm's."""
    path, _, leaf = name.rpartition(".")
    norm = _READERS.get(_module(name)) if leaf == "weight" else None
    if norm == _LAST:
        return next(name for name in model.names if name in ("model.norm.weight", "norm.weight"))
    return None if norm is None else f"{path.rpartition('.')[0].rpartition('.')[0]}.{norm}.weight"


def offset(model: Checkpoint) -> float:
    """What the model's norms add to their weight before they scale by it."""
    return _OFFSETS[model.config["model_type"]]


def _module(name: str) -> str:
    """The last part of the path of a tensor's module."""
    return name.rpartition(".")[0].rpartition(".")[2]


def _source(model: Checkpoint, name: str) -> str:
    """The tensor itself; for a tied head the embedding."""
    if name in model.names:
        return name
    return next(each for each in model.names if each.endswith(EMBEDDING))
