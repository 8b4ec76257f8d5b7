"""Writes a model whose first layers are one model's and whose other layers another's, joined by a rotation.

The back part is turned into the coordinates of the front part's residual stream (`rotation.py`), so that the result is
a checkpoint like any other: no layer is added. The folder appears whole or not at all (`merging.folder`). A map that
is no rotation, such as the affine one, cannot be written so: what the layers add to the stream goes around every norm.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging.checkpoint import SINGLE, Checkpoint
from merging.companions import copy_companions
from merging.configfile import as_bytes
from merging.errors import InvalidModel, InvalidRecipe
from merging.folder import appearing, write_file
from merging.layers import layout
from merging.permuting.decoder import specify
from merging.permuting.rotation import EMBEDDING, HEAD, require_turnable, turned
from merging.permuting.stitching import Turn
from merging.weightfiles import Shape, write_weights

RECORD = "stitch.json"
SCHEMA = "mergesearch/stitch/v1"
_FIELDS = ("model_type", "hidden_size", "vocab_size")


@dataclass(frozen=True)
class Join:
    """How two models are joined.

    Attributes:
        turn: leads from the front's stream to the back's.
        said: what else the record says.
    """

    turn: Turn
    said: Mapping[str, Any]


def stitch(front: Checkpoint, back: Checkpoint, after: int, to: Path, find: Callable[[], Join]) -> Join:
    """Writes the front's embedding and first layers, then the back's other layers, norm and head.

    Weights are laid out as the back's; the tokenizer and its companions are the front's. In `stitch.json` stands how
    the models were joined.

    Args:
        front, back: the models, of one architecture and size.
        after: how many layers are the front's; the others stand where they stand in the back.
        to: the folder to create; its parent must exist.
        find: finds how to join them; called once all else was checked.

    Raises:
        InvalidModel: a model is not understood, its stream cannot be turned, or the two differ.
        InvalidRecipe: there are no such layers.
        OutputError: `to` exists or cannot be written. Nothing is left behind, whatever is raised.
    """
    with appearing(to) as folder:
        require_joinable(front, back, after)
        join = find()
        _write(front, back, after, join.turn, folder)
        copy_companions(front.path, folder)
        write_file(folder / "config.json", as_bytes({**back.config, "tie_word_embeddings": False}))
        record = {"schema": SCHEMA, "front": str(front.path), "back": str(back.path), "after": after}
        written = {**record, "scale": join.turn.scale, **join.said}
        write_file(folder / RECORD, json.dumps(written, indent=2).encode() + b"\n")
    return join


def require_joinable(front: Checkpoint, back: Checkpoint, after: int) -> None:
    """See that the two can be joined there, as far as their headers and configs say.

    Raises:
        InvalidModel: a model is not understood, its stream cannot be turned, or the two differ.
        InvalidRecipe: there are no such layers.
    """
    counts = []
    for model in (front, back):
        require_turnable(model)
        specify({name: model.entry(name).shape for name in model.names}, model.config, ("all",), model.key)
        counts.append(layout(model.names, model.config).layer_count)
    for field in _FIELDS:
        ours, theirs = front.config.get(field), back.config.get(field)
        if ours != theirs:
            problem = f"is {ours!r} in {front.path}"
            raise InvalidModel(f"{back.key}: {field}", theirs, problem, "join models of one architecture and size")
    most = min(counts[0], counts[1] - 1)
    if not 1 <= after <= most:
        problem = f"leaves no layer of one of the models: the first has {counts[0]}, the second {counts[1]}"
        raise InvalidRecipe("after", after, problem, f"use 1 to {most}" if most else "use models of several layers")
    for name in sorted({*_of_front(front, after), *_of_front(back, after)}):
        shapes = [list(model.entry(name).shape) if name in model.names else None for model in (front, back)]
        if shapes[0] != shapes[1]:
            said = ["missing" if shape is None else f"of shape {shape}" for shape in shapes]
            problem = f"is {said[1]} here and {said[0]} in {front.path}"
            raise InvalidModel(back.key, name, problem, "join models of one architecture and size")


def _of_front(model: Checkpoint, after: int) -> list[str]:
    """The tensors that a front part with so many layers has: the embedding and these layers."""
    places = layout(model.names, model.config).places
    return [
        name for name, at in places.items() if (at.layer < after if isinstance(at.layer, int) else at.layer != "after")
    ]


def _write(front: Checkpoint, back: Checkpoint, after: int, turn: Turn, folder: Path) -> None:
    """The weights: names and files are the back's, with a head where that is tied to the embedding."""
    ours = {*_of_front(front, after)}

    def shape(name: str, dtype: torch.dtype, sizes: tuple[int, ...]) -> Shape:
        return name, front.entry(name).dtype if name in ours else dtype, sizes

    def fill(name: str, out: Tensor) -> None:
        out.copy_(front.tensor(name) if name in ours else turned(back, turn, name))
        if not bool(torch.isfinite(out).all()):
            problem = f"stores {name} as {out.dtype}, which cannot hold it in the front's coordinates"
            raise InvalidModel(back.key, str(back.path), problem, "save the model as float32, then join it")

    files = [(file, [shape(entry.name, entry.dtype, entry.shape) for entry in held]) for file, held in back.files()]
    if HEAD not in back.names:
        embedding = back.entry(next(name for name in back.names if name.endswith(EMBEDDING)))
        files[-1][1].append((HEAD, embedding.dtype, embedding.shape))
    ordered = [(file, sorted(held, key=lambda row: -row[1].itemsize)) for file, held in files]  # wide numbers first
    write_weights(folder, ordered, fill, indexed=SINGLE not in back.shards)
