"""Small real checkpoints and recipes for the tests of merging, written by transformers itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, LlamaForCausalLM

from merging.catalog import CATALOG, Method
from merging.checkpoint import SINGLE
from merging.models import ModelSet
from merging.recipe import SCHEMA, GroupMerge, Recipe
from tests.merging.invented import invent

LAYERS = 4
EXPERTS = ("add", "sort", "text")
SUITE = "5" * 32


def tiny_llama(seed: int = 0, *, dtype: torch.dtype = torch.float32, tied: bool = False, vocab: int = 61) -> Any:
    """A random Llama of four layers, about 50 thousand parameters."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
    )
    return LlamaForCausalLM(config).to(dtype)


def fine_tuned(base: Any, seed: int) -> Any:
    """A copy of the model with noise of 2% of a weight's size: a delta as fine-tuning leaves it."""
    other = tiny_llama(dtype=base.dtype, tied=base.config.tie_word_embeddings, vocab=base.config.vocab_size)
    other.load_state_dict(base.state_dict())
    generator = torch.Generator().manual_seed(1000 + seed)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_((noise * 0.02).to(parameter.dtype))
    return other


def write_models(
    root: Path, *, dtype: torch.dtype = torch.float32, tied: bool = False, sharded: bool = False, experts: int = 3
) -> tuple[Path, dict[str, Path]]:
    """Base and experts as folders under `root`."""
    size = "40KB" if sharded else "1GB"
    base = tiny_llama(dtype=dtype, tied=tied)
    base.save_pretrained(root / "base", max_shard_size=size)
    (root / "base" / "tokenizer.json").write_text("{}")
    paths = {}
    for seed, name in enumerate(EXPERTS[:experts]):
        fine_tuned(base, seed).save_pretrained(root / name, max_shard_size=size)
        paths[name] = root / name
    return root / "base", paths


def write_tensors(folder: Path, tensors: dict[str, torch.Tensor]) -> Path:
    """A checkpoint folder of any tensors, with an empty config."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / SINGLE, {"format": "pt"})
    (folder / "config.json").write_text("{}")
    return folder


def models_of(root: Path, *tensors: dict[str, torch.Tensor]) -> ModelSet:
    """A model set of any tensors: the base's, then those of experts called a, b …"""
    base, *experts = (write_tensors(root / str(i), each) for i, each in enumerate(tensors))
    return ModelSet.open(base, {chr(ord("a") + i): path for i, path in enumerate(experts)})


def takes(method: str, experts: int) -> bool:
    """Whether the method takes so many experts."""
    fewest, most = CATALOG[method].experts
    return fewest <= experts <= most


def open_models(root: Path, **how: Any) -> ModelSet:
    """Writes small models under `root` and opens them."""
    return ModelSet.open(*write_models(root, **how))


def a_group(
    row: Method, layers: tuple[int, int], experts: tuple[str, ...], *, chosen: int = 0, **parameters: Any
) -> GroupMerge:
    """A group of the method with uneven weights, or with one expert for a one-hot method."""
    weights: Mapping[str, float] = {}
    if row.name == "sparse_soup":  # the models here are not pruned, and some elements are 0 by chance
        parameters = {"mask": "union"} | parameters
    if row.weighting == "one_hot":
        weights = {name: float(i == chosen % len(experts)) for i, name in enumerate(experts)}
    elif row.weight is not None:
        weights = {name: 0.3 + 0.1 * ((i + chosen) % len(experts)) for i, name in enumerate(experts)}
    return GroupMerge(layers=layers, method=row.name, parameters=parameters, weights=dict(weights))


def a_recipe(models: ModelSet, method: str = "task_arithmetic", *, groups: int = 2, **fields: Any) -> Recipe:
    """A recipe of one method over equal ranges of layers; what it reads of data is invented, and lies on the disk."""
    size = models.layout.layer_count // groups
    spans = [(i * size, (i + 1) * size) for i in range(groups)]
    made = tuple(a_group(CATALOG[method], span, models.names, chosen=i % 2) for i, span in enumerate(spans))
    if not CATALOG[method].artefacts:
        return recipe_of(models, made, **fields)
    recipe = recipe_of(models, made, suite=SUITE, **fields)
    invent(recipe, models)
    return recipe


def recipe_of(models: ModelSet, groups: tuple[GroupMerge, ...], **fields: Any) -> Recipe:
    """A recipe of these groups."""
    experts = {name: str(expert.path) for name, expert in models.experts.items()}
    return Recipe(schema_=SCHEMA, base=str(models.base.path), experts=experts, groups=groups, **fields)
