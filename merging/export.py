"""Writes a merge to disk as an ordinary Hugging Face folder, one tensor at a time.

The folder appears whole or not at all (`merging.folder`).
"""

import json
import math
import os
from collections.abc import Mapping
from io import RawIOBase
from pathlib import Path
from typing import Any

import torch

from merging.checkpoint import INDEX, SINGLE, tie_flag
from merging.companions import companions
from merging.engine import Engine, Plan
from merging.folder import appearing, write_file
from merging.models import ModelSet
from merging.recipe import Recipe, relocated
from merging.shard import header


def export(recipe: Recipe, models: ModelSet, to: Path, extra: Mapping[str, bytes] | None = None) -> None:
    """Writes the merge as a folder that `from_pretrained` loads.

    Weights are laid out as the base's: the same files, the same tensors in each. Beside them stand config.json,
    the base's tokenizer and its companions, and recipe.json. Memory: a few times the largest tensor.

    Args:
        recipe: the merge.
        models: its models, opened.
        to: the folder to create; its parent must exist.
        extra: more files by plain name, e.g. a model card; they win over the base's.

    Raises:
        InvalidRecipe: the recipe is for other models.
        NonFiniteCandidate: a merged tensor has NaN or infinity.
        OutputError: `to` exists or cannot be written. Nothing is left behind, whatever is raised.
    """
    extra = dict(extra or {})
    for name in extra:
        if not name or Path(name).name != name:
            raise ValueError(f"extra file {name!r} is not a plain file name")
    with appearing(to) as folder:
        engine = Engine(models)
        plans = engine.plans(recipe)
        _write_weights(engine, plans, folder)
        _copy_companions(models.base.path, folder)
        texts = {
            "config.json": _config(models, recipe),
            "recipe.json": relocated(recipe, to.absolute()).to_json().encode(),
        }
        for name, content in (texts | extra).items():
            write_file(folder / name, content)


def _write_weights(engine: Engine, plans: Mapping[str, Plan], folder: Path) -> None:
    base, weights, total = engine.models.base, {}, 0
    stored = {name: engine.stored(name, plan) for name, plan in plans.items()}
    largest = max(math.prod(base.entry(name).shape) * dtype.itemsize for name, dtype in stored.items())
    buffer = bytearray(max(largest, 1))  # one for all tensors: fresh memory costs more than the merge itself
    for file, entries in base.files():
        # wide numbers first, so that every tensor is aligned to its own width
        ordered = sorted(entries, key=lambda e: -stored[e.name].itemsize)
        with (folder / file).open("wb", buffering=0) as out:
            out.write(header((e.name, stored[e.name], e.shape) for e in ordered))
            for entry in ordered:
                data = _merged(engine, plans[entry.name], entry.name, buffer)
                _write_all(out, data)
                total += len(data)
                weights[entry.name] = file
            os.fsync(out.fileno())
    if SINGLE not in base.shards:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weights.items()))}
        write_file(folder / INDEX, json.dumps(index, indent=2).encode() + b"\n")


def _merged(engine: Engine, plan: Plan, name: str, buffer: bytearray) -> memoryview:
    """The merged tensor's bytes, in the buffer."""
    dtype, shape = engine.stored(name, plan), engine.models.base.entry(name).shape
    count = math.prod(shape)
    if count:
        engine.merge(name, plan, torch.frombuffer(buffer, dtype=dtype, count=count).view(shape))
    return memoryview(buffer)[: count * dtype.itemsize]


def _write_all(out: RawIOBase, data: memoryview) -> None:
    """Unbuffered files may take less than they are given (at most 2 GiB a call)."""
    while data:
        data = data[out.write(data) :]


def _copy_companions(base: Path, folder: Path) -> None:
    for source in companions(base):
        target = folder / source.relative_to(base)
        target.parent.mkdir(exist_ok=True)
        write_file(target, source.read_bytes())


def _config(models: ModelSet, recipe: Recipe) -> bytes:
    """The base's config.json, with the dtype and the tie that the weights have."""
    config: dict[str, Any] = json.loads(json.dumps(models.base.config))
    if models.base.ties_head and tie_flag(config) is None:
        config["tie_word_embeddings"] = True
    if recipe.dtype:
        found = [c for c in (config, *config.values()) if isinstance(c, dict)]
        for part in found:
            for field in ("dtype", "torch_dtype"):
                if field in part:
                    part[field] = recipe.dtype
        if not {"dtype", "torch_dtype"} & set(config):
            config["dtype"] = recipe.dtype
    return json.dumps(config, indent=2).encode() + b"\n"
