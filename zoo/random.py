"""Random weights of any size for benchmarks: a Llama's tensors and its fine-tunes (base plus small noise).

No training, no tokenizer; the scores are noise, the shapes and the files are real.
"""

import json
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

DType = Literal["float32", "bfloat16", "float16"]
_VOCABULARY = 8192
_HEAD = 64
_SPREAD = 0.02
_NOISE = 0.1  # of the base's spread
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class RandomModels:
    """The folders written.

    Attributes:
        base: the base model.
        experts: by name, `expert0` onwards.
        parameters: how many parameters each really has.
    """

    base: Path
    experts: dict[str, Path]
    parameters: int


def build_random(
    folder: Path,
    parameters: float = 100e6,
    experts: int = 3,
    dtype: DType = "bfloat16",
    layers: int = 12,
    seed: int = 0,
    shards: int = 1,
) -> RandomModels:
    """Writes `folder`/base and `folder`/expert0 ... over what was there; one shard of each is in memory at a time.

    Args:
        parameters: about how many parameters a model has; the width follows, in steps of 64.
        shards: files a model is cut into; above 1 with an index, as transformers writes it.
    """
    width = _width(parameters, layers)
    shapes = _shapes(width, layers)
    folder = Path(folder)
    places = {"base": folder / "base"} | {f"expert{index}": folder / f"expert{index}" for index in range(experts)}
    for place in places.values():
        place.mkdir(parents=True, exist_ok=True)
        for old in (*place.glob("*.safetensors"), *place.glob(_INDEX)):
            old.unlink()
    files = _cut(shapes, shards)
    for file, names in files.items():
        base = {
            name: torch.ones(shapes[name]) if len(shapes[name]) == 1 else _draw(shapes[name], f"{seed} base {name}")
            for name in names
        }
        for model, place in places.items():
            stored = {
                name: _stored(tensor, None if model == "base" else f"{seed} {model} {name}", dtype)
                for name, tensor in base.items()
            }
            save_file(stored, place / file, metadata={"format": "pt"})
    for place in places.values():
        _describe(place, width, layers, dtype, shapes, files)
    total = sum(shape.numel() for shape in shapes.values())
    base_folder = places.pop("base")
    return RandomModels(base_folder, places, total)


def _draw(shape: torch.Size, key: str) -> Tensor:
    """Normal random numbers in float32, named by the key."""
    generator = torch.Generator().manual_seed(int.from_bytes(blake2b(key.encode(), digest_size=7).digest()))
    return torch.empty(shape).normal_(generator=generator).mul_(_SPREAD)


def _stored(tensor: Tensor, noise: str | None, dtype: DType) -> Tensor:
    """The tensor as it is saved: as it is for the base, with the noise of that key for an expert."""
    tuned = tensor if noise is None else torch.add(tensor, _draw(tensor.shape, noise), alpha=_NOISE)
    return tuned.to(getattr(torch, dtype))


def _width(parameters: float, layers: int) -> int:
    """The width in steps of 64 whose model comes nearest to so many parameters."""

    def distance(width: int) -> float:
        return abs(sum(shape.numel() for shape in _shapes(width, layers).values()) - parameters)

    most = max(2, int((parameters / layers / 12) ** 0.5 / _HEAD) + 2)
    return min((_HEAD * step for step in range(1, most + 1)), key=distance)


def _ffn(width: int) -> int:
    return width * 8 // 3 // _HEAD * _HEAD


def _shapes(width: int, layers: int) -> dict[str, torch.Size]:
    """Every tensor of the model, in the order a Llama has them."""
    ffn = _ffn(width)
    layer = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (width, width),
        "self_attn.v_proj": (width, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (ffn, width),
        "mlp.up_proj": (ffn, width),
        "mlp.down_proj": (width, ffn),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_VOCABULARY, width)}
    for index in range(layers):
        shapes |= {f"model.layers.{index}.{name}.weight": shape for name, shape in layer.items()}
    shapes |= {"model.norm.weight": (width,), "lm_head.weight": (_VOCABULARY, width)}
    return {name: torch.Size(shape) for name, shape in shapes.items()}


def _cut(shapes: dict[str, torch.Size], shards: int) -> dict[str, list[str]]:
    """The names in each file, files of about the same size."""
    if shards == 1:
        return {"model.safetensors": list(shapes)}
    total = sum(shape.numel() for shape in shapes.values())
    files: dict[str, list[str]] = {f"model-{n + 1:05d}-of-{shards:05d}.safetensors": [] for n in range(shards)}
    names, before = list(files), 0
    for name, shape in shapes.items():
        files[names[min(shards - 1, before * shards // total)]].append(name)
        before += shape.numel()
    return files


def _describe(
    place: Path, width: int, layers: int, dtype: DType, shapes: dict[str, torch.Size], files: dict[str, list[str]]
) -> None:
    """Writes config.json and, for several files, the index."""
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": dtype,
        "vocab_size": _VOCABULARY,
        "hidden_size": width,
        "intermediate_size": _ffn(width),
        "num_hidden_layers": layers,
        "num_attention_heads": width // _HEAD,
        "num_key_value_heads": width // _HEAD,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    }
    (place / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    if len(files) > 1:
        size = sum(shape.numel() for shape in shapes.values()) * getattr(torch, dtype).itemsize
        index = {
            "metadata": {"total_size": size},
            "weight_map": {name: file for file, names in files.items() for name in sorted(names)},
        }
        (place / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
