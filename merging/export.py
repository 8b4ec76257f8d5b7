"""Writes a merge to disk as an ordinary Hugging Face folder, one tensor at a time.

The folder appears whole or not at all (`merging.folder`).
"""

import json
import math
import os
from collections.abc import Mapping
from io import RawIOBase
from pathlib import Path

import torch

from merging.arrangement import arrange
from merging.checkpoint import INDEX, SINGLE
from merging.engine import Engine, Plan
from merging.folder import appearing, write_file
from merging.models import ModelSet
from merging.recipe import Recipe, relocated
from merging.resultconfig import as_bytes, result_config
from merging.shard import header


def export(recipe: Recipe, models: ModelSet, to: Path, extra: Mapping[str, bytes] | None = None) -> None:
    """Writes the merge as a folder that `from_pretrained` loads.

    Weights are laid out as the base's: the same files, the same tensors in each. Beside them stand config.json,
    the tokenizer that the recipe names with its companions, and recipe.json. Memory: a few times the largest tensor.

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
        config = result_config(models, recipe.dtype, arrange(recipe, models.layout, models.names))
        texts = {"config.json": as_bytes(config), "recipe.json": relocated(recipe, to.absolute()).to_json().encode()}
        for name, content in ({**models.companion_files()} | texts | extra).items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_file(folder / name, content)


def _write_weights(engine: Engine, plans: Mapping[str, Plan], folder: Path) -> None:
    models, weights, total = engine.models, {}, 0
    entries = {name: _entry(engine, plan) for name, plan in plans.items()}
    largest = max(math.prod(shape) * dtype.itemsize for _, dtype, shape in entries.values())
    buffer = bytearray(max(largest, 1))  # one for all tensors: fresh memory costs more than the merge itself
    for file, held in models.base.files():
        sources = {entry.name: place for place, entry in enumerate(held)}
        of_file = [(sources[p.part.base], *entries[n]) for n, p in plans.items() if p.part.base in sources]
        # wide numbers first, so that every tensor is aligned to its own width; then as the base's file has them
        ordered = [row[1:] for row in sorted(of_file, key=lambda row: (-row[2].itemsize, row[0], row[1]))]
        with (folder / file).open("wb", buffering=0) as out:
            out.write(header(ordered))
            for name, dtype, shape in ordered:
                data = _merged(engine, plans[name], dtype, shape, buffer)
                _write_all(out, data)
                total += len(data)
                weights[name] = file
            os.fsync(out.fileno())
    if SINGLE not in models.base.shards:
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weights.items()))}
        write_file(folder / INDEX, json.dumps(index, indent=2).encode() + b"\n")


def _entry(engine: Engine, plan: Plan) -> tuple[str, torch.dtype, tuple[int, ...]]:
    """Name, dtype and shape of one tensor of the result."""
    return plan.part.name, engine.stored(plan), engine.models.shape(plan.part.base)


def _merged(engine: Engine, plan: Plan, dtype: torch.dtype, shape: tuple[int, ...], buffer: bytearray) -> memoryview:
    """The merged tensor's bytes, in the buffer."""
    count = math.prod(shape)
    if count:
        engine.merge(plan, torch.frombuffer(buffer, dtype=dtype, count=count).view(shape))
    return memoryview(buffer)[: count * dtype.itemsize]


def _write_all(out: RawIOBase, data: memoryview) -> None:
    """Unbuffered files may take less than they are given (at most 2 GiB a call)."""
    while data:
        data = data[out.write(data) :]
