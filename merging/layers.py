"""What a checkpoint's tensors are: which layer each belongs to, and whether it is attention, mlp or other.

Read from the names alone, with no list of architectures. A layer stack is a numbered list whose parent is called
like one (`model.layers.3.`, `h.3.`, `encoder.block.3.`); several stacks (T5, a vision tower) count as one run of
layers, encoders first. What lies outside the stacks stands before them (embeddings) or after (final norm, head).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Module = Literal["attention", "mlp", "other"]
Layer = int | Literal["before", "after"]

# The last part of a stack's name: layers, layer, decoder_layers, h, block, blocks, resblocks, albert_layer_groups …
# Not the convolutions in front of a speech model or between the stages of a vision model.
_STACK = re.compile(r"^(h|stages|(?!conv_|downsampl)(.*_)?(layers?|res_?blocks?|blocks?|layer_groups))$")
_AFTER = re.compile(
    r"^decoder\.(weight|bias)$|(^|[._])(lm_head|embed_out|heads?|scores?|classifier|classification_head|cls|qa_outputs"
    r"|pooler|pre_logits|predictions|lm_loss|vocab_transform|vocab_projector|final_logits_bias"
    r"|norm|norm_f|ln_f|ln_out|final_norm|final_layer_?norm|layer_?norm|ln_post|post_layernorm|output_projection"
    r"|project_out|proj_out|text_projection|visual_projection|logit_scale)(\.|$)",
    re.IGNORECASE,
)
_BEFORE = re.compile(r"embed(?!_out)|(^|\.)(wte|wpe|shared|patch|stem|feature_(extractor|projection))", re.IGNORECASE)
NORM = re.compile(r"norm|(^|[._])ln(_|\d|\.)", re.IGNORECASE)
"""What is called like a normalisation: `input_layernorm`, `ln_1`, `q_norm`."""
# What is an mlp's in a mixer that may be any kind of layer (Nemotron-H).
_MIXED_MLP = re.compile(r"mixer\.(up_proj|down_proj|gate|experts?|shared_experts?)\.")
_ATTENTION = re.compile(
    r"att(e)?n|(^|\.)[qkvo]_proj\.|query_key_value|(^|\.)mixer\.|mamba|ssm|temporal_block|\d\.(conv|short_conv)\.",
    re.IGNORECASE,
)
_MLP = re.compile(
    r"mlp|ffn?\b|ffn_|feed_?forward|moe|expert|(^|\.)fc_?\d|dense|intermediate|(^|\.)w[i123o](_\d)?\.|pwconv|_proj\.",
    re.IGNORECASE,
)
# How configs name the number of layers: the tie-breaker for a stack whose name says nothing.
COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "depth")


@dataclass(frozen=True)
class Place:
    """Where one tensor stands.

    Attributes:
        layer: index among all layers, or which side of them.
        module: what it is part of. `attention` is what mixes tokens, a state-space or recurrent mixer as well as
            attention; `mlp` works on each token alone; `other` is norms, embeddings and heads.
    """

    layer: Layer
    module: Module


@dataclass(frozen=True)
class Layout:
    """Where every tensor of a checkpoint stands.

    Attributes:
        layer_count: number of layers, at least 1 (a model without recognisable layers counts as one).
        places: by tensor name.
    """

    layer_count: int
    places: Mapping[str, Place]


def layout(names: Iterable[str], config: Mapping[str, Any]) -> Layout:
    """Where every tensor stands.

    Args:
        names: the checkpoint's tensor names, in any order.
        config: its config.json, which decides only where the names do not.
    """
    ordered = sorted(names)
    found = {name: _numbered(name, _STACK) for name in ordered}
    if not any(found.values()):
        found = _counted(ordered, config)
    sizes: dict[str, int] = {}
    for hit in found.values():
        if hit:
            sizes[hit[0]] = max(sizes.get(hit[0], 0), hit[1] + 1)
    starts, count = {}, 0
    for stack in sorted(sizes, key=_depth):
        starts[stack], count = count, count + sizes[stack]
    places = {}
    for name, hit in found.items():
        if hit:
            places[name] = Place(starts[hit[0]] + hit[1], _module(name[len(hit[0]) :]))
        else:
            places[name] = Place("after" if _is_after(name) else "before", "other")
    return Layout(max(1, count), places)


def _numbered(name: str, stack: re.Pattern[str]) -> tuple[str, int] | None:
    """The outermost stack a name lies in and its index there: `a.layers.3.b` -> (`a.layers`, 3)."""
    parts = name.split(".")
    for i in range(1, len(parts) - 1):
        if parts[i].isdigit() and stack.match(parts[i - 1]):
            return ".".join(parts[:i]), int(parts[i])
    return None


def _counted(names: list[str], config: Mapping[str, Any]) -> dict[str, tuple[str, int] | None]:
    """Stacks under any name whose length is the config's number of layers."""
    found = {name: _numbered(name, re.compile("")) for name in names}
    sizes: dict[str, set[int]] = {}
    for hit in found.values():
        if hit:
            sizes.setdefault(hit[0], set()).add(hit[1])
    counts = {config.get(key) for key in COUNTS}
    return {name: hit if hit and len(sizes[hit[0]]) in counts else None for name, hit in found.items()}


def _depth(stack: str) -> tuple[int, str]:
    """Sorts stacks the way data flows: encoders and vision towers, then the rest, decoders last."""
    if re.search(r"encoder|vis", stack):
        return 0, stack
    return (2 if "decoder" in stack else 1), stack


def _is_after(name: str) -> bool:
    return not _BEFORE.search(name) and _AFTER.search(name) is not None


def _module(inside: str) -> Module:
    """The module of a tensor from its name inside its layer, e.g. `.3.self_attn.q_proj.weight`."""
    if NORM.search(inside):
        return "other"
    if _ATTENTION.search(inside) and not _MIXED_MLP.search(inside):
        return "attention"
    return "mlp" if _MLP.search(inside) or _MIXED_MLP.search(inside) else "other"
