"""What kind of thing a tensor is: a matrix, a stack of matrices, an embedding or a vector; and which way it lies.

Read from the name and the shape, with no list of architectures; only the few that store linear weights input first
are known by their config's `model_type`. Methods that work on matrices ask here what to treat as one. No torch here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from merging.layers import NORM

Role = Literal["matrix", "stack", "embedding", "vector", "other"]

_BIAS = re.compile(r"bias(\.|$|_table$)", re.IGNORECASE)  # of experts [E, out]; tables of relative positions
_WEIGHT = re.compile(r"(^|[._])weight$")
# Whole matrices one above the other along the first of two dimensions (DBRX): no matrix of any linear map.
_FUSED = re.compile(r"\.experts\.mlp\.(w1|v1|w2)$")
# Modules that hold one matrix for each expert or block, and what is stored without `.weight`.
_STACK = re.compile(r"expert|moe(\.|_|$)|(in|out)put_linear|gate_weight$", re.IGNORECASE)
_EMBEDDING = re.compile(r"^(wte|wpe|shared|\w*embed\w*|\w*_emb)$", re.IGNORECASE)
_PROJECTION = re.compile(r"proj|mapping|linear|dense|conv", re.IGNORECASE)  # embeddings_project is a linear map
# Heads; those of the second line only outside the layers, for a router too has a classifier.
_HEAD = re.compile(
    r"(^|\.)(\w*lm_head|embed_out|qa_outputs|vocab_projector|output_projection|(lm_head|predictions)\.decoder)$"
    r"|^(\w+\.)?(heads?|score|classifier(\.\d+)?|(classifier|classification_head)\.out_proj)$"
)
_NUMBERED = re.compile(r"\.\d+\.")
# Convolutions of width 1 that GPT-2 and its kin use as linear maps, stored [in, out].
_CONV1D = re.compile(r"\.(c_attn|q_attn|c_proj|c_fc)\.weight$")
_CONV1D_MODELS = frozenset({"gpt2", "openai-gpt", "imagegpt", "decision_transformer", "clvp", "clvp_decoder"})
_FROM_THE_RIGHT = re.compile(r"mm_input_projection_weight$")  # Gemma 3's projector computes x @ W
# Experts fused as [experts, in, out]; every other architecture fuses them [experts, out, in].
_EXPERTS = re.compile(r"\.experts\.(gate_up_proj|up_proj|gate_proj|down_proj|fc1\.weight|fc2\.weight)$")
_EXPERT_MODELS = frozenset({"gpt_oss", "llama4", "llama4_text", "aria", "aria_text", "openai_privacy_filter"})


def role(name: str, shape: Sequence[int], config: Mapping[str, Any] | None = None) -> Role:
    """What kind of thing a tensor is.

    Args:
        name: its name in the checkpoint.
        shape: its shape; a vocabulary may be padded beyond what the config says.
        config: config.json, from which the size of the vocabulary is read.

    Returns:
        `matrix`: the weight of a linear map, 2-D. `stack`: one matrix for each entry of the first dimension (fused
        experts), 3-D. `embedding`: a 2-D table with a row for each token, position, type or class; heads too.
        `vector`: at most one dimension is longer than 1 (biases, norms). `other`: the rest, such as kernels of
        convolutions, state matrices and tables of relative positions.
    """
    if sum(size > 1 for size in shape) <= 1:
        return "vector"
    # norms too may have two dimensions: Cohere's q_norm is [heads, size]
    if _BIAS.search(name) or NORM.search(name) or _FUSED.search(name):
        return "other"
    if len(shape) == 3:
        return "stack" if _STACK.search(name) and min(shape[1:]) > 1 else "other"
    if len(shape) != 2:
        return "other"
    if _is_table(name, shape[0], config or {}):
        return "embedding"
    return "matrix" if _WEIGHT.search(name) or name.endswith("_proj") else "other"


def transposed(name: str, config: Mapping[str, Any]) -> bool:
    """Whether a matrix, or each of a stack, is stored [in, out] instead of [out, in].

    Args:
        name: the tensor's name in the checkpoint.
        config: config.json; the `model_type` of the model or of any part of it counts.
    """
    if _FROM_THE_RIGHT.search(name):
        return True
    kinds = set(_values(config, "model_type"))
    if _CONV1D.search(name):
        return not kinds.isdisjoint(_CONV1D_MODELS)
    return _EXPERTS.search(name) is not None and not kinds.isdisjoint(_EXPERT_MODELS)


def _is_table(name: str, rows: int, config: Mapping[str, Any]) -> bool:
    """Whether a 2-D tensor is an embedding or a head: by its own name, or outside the layers by its rows."""
    module = re.sub(r"\.(weight|weights)$", "", name)
    leaf = module.rpartition(".")[2]
    if _HEAD.search(module) or (_EMBEDDING.match(leaf) and not _PROJECTION.search(leaf)):
        return True
    return _NUMBERED.search(name) is None and rows in _values(config, "vocab_size")


def _values(config: Mapping[str, Any], key: str) -> Iterator[Any]:
    """What a config and the configs of its parts say under a key."""
    if key in config:
        yield config[key]
    for part in config.values():
        if isinstance(part, dict) and key in part:
            yield part[key]
