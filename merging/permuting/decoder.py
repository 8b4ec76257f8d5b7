"""The permutations of a decoder built like a Llama, from its tensors' names and shapes and its config.

Llama, Mistral, Qwen 2 and 3, Gemma, Phi-3, OLMo 2 and what else has their modules: attention with rotary positions
(which fix the order of channels in queries and keys), key-value heads shared by blocks of query heads, an MLP of
hidden units that do not see each other, norms over the residual stream. Whatever is called otherwise is refused:
permuting all but one tensor destroys a model. No mixtures of experts, no encoders, no vision towers. No torch here.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from merging.errors import InvalidModel, InvalidRecipe
from merging.permuting.specification import Permutation, Site, Specification

PARTS = ("mlp", "attention", "residual")
_TENSOR = re.compile(
    r"^(?:model\.)?(?:layers\.(?P<layer>\d+)\."
    r"(?:self_attn\.(?P<attention>[qkvo]_proj|qkv_proj|[qk]_norm)|mlp\.(?P<mlp>(?:gate|up|gate_up|down)_proj)|(\w*norm))"
    r"|(?P<outside>embed_tokens|norm|lm_head))\.(?P<leaf>weight|bias)$"
)
_OUTPUTS = ("o_proj", "down_proj")  # write to the residual stream; all other matrices read from it
_REMEDY = "align decoders whose modules are called as Llama's"


@dataclass(frozen=True)
class _Tensor:
    name: str
    layer: int  # -1 outside the layers
    module: str
    bias: bool
    shape: tuple[int, ...]


@dataclass(frozen=True)
class _Heads:
    """How many key-value heads, query heads of each, channels of each head."""

    groups: int
    queries: int
    channels: int


def specify(
    shapes: Mapping[str, Sequence[int]],
    config: Mapping[str, Any],
    parts: Sequence[str] = ("mlp",),
    key: str = "model",
) -> Specification:
    """The permutations of a model.

    Args:
        shapes: of all its tensors, by name; tied copies and computed buffers left out.
        config: its config.json: numbers of heads.
        parts: which to allow: `mlp`, `attention`, `residual`, or `all` of them.
        key: where the model is named, for messages.

    Raises:
        InvalidModel: a tensor is not understood, is missing, or has another shape than the config says.
        InvalidRecipe: no such part.
    """
    wanted = check_parts(parts)
    tensors = [_read(name, tuple(shapes[name]), key) for name in sorted(shapes)]
    layers = sorted({tensor.layer for tensor in tensors if tensor.layer >= 0})
    if not layers:
        raise InvalidModel(key, None, "has no layers that are called model.layers.0 and so on", _REMEDY)
    found: list[Permutation] = []
    for layer in layers:
        held = [tensor for tensor in tensors if tensor.layer == layer]
        if "mlp" in wanted:
            found.append(_mlp(layer, held, key))
        if "attention" in wanted:
            found += _attention(layer, held, _heads(config, key), key)
    if "residual" in wanted:
        found.append(_residual(tensors, key, _number(config, "hidden_size", key)))
    return Specification(tuple(found))


def check_parts(parts: Sequence[str]) -> tuple[str, ...]:
    """The parts, in a fixed order, each once.

    Raises:
        InvalidRecipe: one does not exist, or there is none.
    """
    for part in parts:
        if part not in (*PARTS, "all"):
            problem = "is no part of a model whose units can be permuted"
            raise InvalidRecipe("parts", part, problem, f"use {', '.join(PARTS)}, or all")
    if not parts:
        raise InvalidRecipe("parts", None, "name nothing to permute", f"use {', '.join(PARTS)}, or all")
    return tuple(part for part in PARTS if part in parts or "all" in parts)


def _read(name: str, shape: tuple[int, ...], key: str) -> _Tensor:
    found = _TENSOR.match(name)
    if found is None:
        raise InvalidModel(key, name, "is a tensor in which the order of units is not understood", _REMEDY)
    module = found["attention"] or found["mlp"] or found["outside"] or "norm"
    return _Tensor(name, int(found["layer"] or -1), module, found["leaf"] == "bias", shape)


def _heads(config: Mapping[str, Any], key: str) -> _Heads:
    count = _number(config, "num_attention_heads", key)
    groups = _number(config, "num_key_value_heads", key, count)
    if count % groups:
        problem = f"query heads cannot be shared out among {groups} key-value heads"
        raise InvalidModel(f"{key}: num_attention_heads", count, problem, "correct its config.json")
    size = _number(config, "head_dim", key, _number(config, "hidden_size", key, count) // count)
    return _Heads(groups, count // groups, size)


def _number(config: Mapping[str, Any], field: str, key: str, default: int | None = None) -> int:
    value = config.get(field)
    value = default if value is None else value
    if not isinstance(value, int) or value < 1:
        raise InvalidModel(f"{key}: {field}", value, "is no number above 0 in config.json", "correct its config.json")
    return value


def _mlp(layer: int, held: Sequence[_Tensor], key: str) -> Permutation:
    """Hidden units: rows of gate and up, columns of down."""
    _require(held, (("up_proj", "gate_up_proj"), ("down_proj",)), layer, key)
    down = next(tensor for tensor in held if tensor.module == "down_proj" and not tensor.bias)
    size = down.shape[-1]
    sites = [_site(down, 1, size, key)]
    for tensor in held:
        if tensor.module in ("gate_proj", "up_proj", "gate_up_proj"):
            repeats = 2 if tensor.module == "gate_up_proj" else 1  # all of gate, then all of up
            _expect(tensor, 0, repeats * size, key)
            sites.append(Site(tensor.name, 0, 0, repeats, size, 1))
    return Permutation(f"layers.{layer}.mlp", "mlp", size, tuple(sites))


def _attention(layer: int, held: Sequence[_Tensor], heads: _Heads, key: str) -> Iterator[Permutation]:
    """Key-value heads with their query heads, then what is inside each: query heads, and channels of values."""
    projections = (("q_proj", "qkv_proj"), ("k_proj", "qkv_proj"), ("v_proj", "qkv_proj"), ("o_proj",))
    _require(held, projections, layer, key)
    groups, queries, channels = heads.groups, heads.queries, heads.channels
    block = queries * channels  # rows of q, and columns of o, of one key-value head
    q, k, v = (list(_rows(held, letter, heads, key)) for letter in "qkv")
    out = next(tensor for tensor in held if tensor.module == "o_proj" and not tensor.bias)
    _expect(out, 1, groups * block, key)
    whole = [Site(name, 0, start, 1, groups, block) for name, start in q]
    whole += [Site(name, 0, start, 1, groups, channels) for name, start in (*k, *v)]
    outer, inside = f"layers.{layer}.heads", range(groups)
    yield Permutation(outer, "heads", groups, (*whole, Site(out.name, 1, 0, 1, groups, block)))
    names = tuple(f"{outer}.{group}.queries" for group in inside)
    for group, name in enumerate(names):
        sites = [Site(tensor, 0, start + group * block, 1, queries, channels) for tensor, start in q]
        sites.append(Site(out.name, 1, group * block, 1, queries, channels))
        yield Permutation(name, "queries", queries, tuple(sites), outer, names)
    names = tuple(f"{outer}.{group}.channels" for group in inside)
    for group, name in enumerate(names):
        sites = [Site(tensor, 0, start + group * channels, 1, channels, 1) for tensor, start in v]
        sites.append(Site(out.name, 1, group * block, queries, channels, 1))
        yield Permutation(name, "channels", channels, tuple(sites), outer, names)


def _rows(held: Iterable[_Tensor], letter: str, heads: _Heads, key: str) -> Iterator[tuple[str, int]]:
    """The tensors in whose rows the heads of queries, keys or values lie, and from which row on."""
    narrow = heads.groups * heads.channels
    one_head = (heads.channels,)  # a norm that all heads share; else it is over all of them at once
    lengths = {"q": narrow * heads.queries, "k": narrow, "v": narrow}
    for tensor in held:
        if tensor.module == "qkv_proj":
            _expect(tensor, 0, sum(lengths.values()), key)
            yield tensor.name, {"q": 0, "k": lengths["q"], "v": lengths["q"] + lengths["k"]}[letter]
        elif tensor.module == f"{letter}_proj" or (tensor.module == f"{letter}_norm" and tensor.shape != one_head):
            _expect(tensor, 0, lengths[letter], key)
            yield tensor.name, 0


def _residual(tensors: Sequence[_Tensor], key: str, size: int) -> Permutation:
    """Coordinates of the residual stream: columns of what reads from it, rows of what writes to it, norms."""
    sites = []
    for tensor in tensors:
        if tensor.module in ("norm", *_OUTPUTS):
            sites.append(_site(tensor, 0, size, key))
        elif not tensor.bias and not tensor.module.endswith("_norm"):
            sites.append(_site(tensor, 1, size, key))
    return Permutation("residual", "residual", size, tuple(sites))


def _require(held: Sequence[_Tensor], modules: Iterable[Sequence[str]], layer: int, key: str) -> None:
    """A layer has a weight of one of each of these modules."""
    present = {tensor.module for tensor in held if not tensor.bias}
    for names in modules:
        if present.isdisjoint(names):
            raise InvalidModel(key, f"layers.{layer}", f"has no {names[0]}.weight", _REMEDY)


def _site(tensor: _Tensor, axis: int, size: int, key: str) -> Site:
    """The units, one entry each, along the whole of an axis."""
    _expect(tensor, axis, size, key)
    return Site(tensor.name, axis, 0, 1, size, 1)


def _expect(tensor: _Tensor, axis: int, length: int, key: str) -> None:
    dimensions = 1 if tensor.bias or "norm" in tensor.module else 2
    if len(tensor.shape) != dimensions or tensor.shape[axis] != length:
        problem = f"has the shape {list(tensor.shape)}, but {length} entries belong on axis {axis}"
        raise InvalidModel(key, tensor.name, problem, _REMEDY)
