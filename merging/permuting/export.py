"""Writes a copy of a checkpoint whose units stand in another model's order, one tensor at a time.

The folder appears whole or not at all (`merging.folder`). The copy computes what the expert computes: to merge it with
the reference is another step.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from merging.checkpoint import SINGLE, Checkpoint
from merging.companions import copy_companions
from merging.configfile import as_bytes, tied
from merging.errors import InvalidModel
from merging.fingerprint import is_finite
from merging.folder import appearing, write_file
from merging.permuting.apply import permute
from merging.permuting.decoder import check_parts, specify
from merging.permuting.matching import Match, Source, cosine, match_weights
from merging.permuting.specification import Specification
from merging.weightfiles import Fill, write_weights

RECORD = "alignment.json"
SCHEMA = "mergesearch/alignment/v1"
Found = tuple[Match, Mapping[str, Any]]
"""The orders, and what `alignment.json` says of how they were found."""
Find = Callable[[Specification, Source, Source], Found]
"""Finds the orders of the expert's units, given both models' specification, the reference and the expert."""


def by_weights(seed: int = 0) -> Find:
    """Finds the order in which the expert's weights are most like the reference's."""

    def find(specification: Specification, reference: Source, expert: Source) -> Found:
        match = match_weights(specification, reference, expert, seed)
        return match, {"by": "weights", "seed": seed, "sweeps": match.sweeps, "gain": match.gain}

    return find


def align(
    expert: Checkpoint, reference: Checkpoint, to: Path, *, parts: Sequence[str] = ("mlp",), find: Find | None = None
) -> Match:
    """Writes the expert with its units in the order of the reference's.

    Layout, dtypes, config.json and companions are the expert's; its numbers are the same, bit for bit, elsewhere. In
    `alignment.json` stand the orders, how they were found, and the cosine of the two models before and after.

    Args:
        expert: the model to bring into another order.
        reference: the model that has the order, of one shape with it; if `residual` may be permuted, also of one
            vocabulary, row by row.
        to: the folder to create; its parent must exist.
        parts: what may be permuted: `mlp`, `attention`, `residual`, or `all`.
        find: finds the order, once the models were checked; None: by their weights.

    Raises:
        InvalidModel: a model is not understood or not finite, or they differ in tensors or shapes.
        InvalidRecipe: no such part.
        OutputError: `to` exists or cannot be written. Nothing is left behind, whatever is raised.
    """
    with appearing(to) as folder:
        specification = specify_both(expert, reference, parts)
        sources = require_finite(reference, specification), require_finite(expert, specification)
        match, said = (find or by_weights())(specification, *sources)
        write_ordered(expert, specification, match, folder)
        write_beside(expert, folder)
        before, after = (cosine(specification, *sources, orders) for orders in ({}, match.orders))
        said = {"parts": list(check_parts(parts)), **said, "similarity": {"before": before, "after": after}}
        write_record(expert, reference, said, match, folder)
    return match


def specify_both(expert: Checkpoint, reference: Checkpoint, parts: Sequence[str]) -> Specification:
    """The permutations of both models.

    Raises:
        InvalidModel: they are not built alike where it matters.
    """
    made, other = (
        specify({name: model.entry(name).shape for name in model.names}, model.config, parts, model.key)
        for model in (expert, reference)
    )
    names, remedy = sorted({*made.sites, *other.sites}), "align models of one architecture and size"
    for name in names:
        shapes = [model.entry(name).shape if name in model.names else None for model in (expert, reference)]
        if shapes[0] != shapes[1]:
            said = ["missing" if shape is None else f"of shape {list(shape)}" for shape in shapes]
            raise InvalidModel(expert.key, name, f"is {said[0]} here and {said[1]} in the reference", remedy)
    for name in names:
        if made.sites.get(name) != other.sites.get(name):
            raise InvalidModel(expert.key, name, "has other heads here than in the reference", remedy)
    return made


def require_finite(model: Checkpoint, specification: Specification) -> Source:
    """The model's tensors, each looked at once.

    Raises:
        InvalidModel: one holds NaN or infinity.
    """
    for name in sorted(specification.sites):
        if not is_finite(model.tensor(name)):
            problem = f"has NaN or infinity in tensor {name}"
            raise InvalidModel(model.key, str(model.path), problem, "use a checkpoint that trained to the end")
    return model.tensor


def write_ordered(model: Checkpoint, specification: Specification, match: Match, folder: Path) -> None:
    """The weights with their units in other orders, laid out as they are."""

    def fill(name: str, out: Tensor) -> None:
        out.copy_(permute(specification, match.orders, name, model.tensor(name)))

    write_as(model, fill, folder)


def write_as(model: Checkpoint, fill: Fill, folder: Path) -> None:
    """Weights that are laid out as a model's, with its names, shapes and dtypes."""
    files = [(file, [(entry.name, entry.dtype, entry.shape) for entry in held]) for file, held in model.files()]
    write_weights(folder, files, fill, indexed=SINGLE not in model.shards)


def write_beside(expert: Checkpoint, folder: Path) -> None:
    """config.json, the tokenizer and the other files of the expert."""
    copy_companions(expert.path, folder)
    write_file(folder / "config.json", as_bytes(tied(dict(expert.config), expert)))


def write_record(
    expert: Checkpoint, reference: Checkpoint, said: Mapping[str, Any], match: Match, folder: Path
) -> None:
    """`alignment.json`: the models, what is said of how they were aligned, and the orders."""
    orders = {name: order.tolist() for name, order in match.orders.items()}
    models = {"schema": SCHEMA, "expert": str(expert.path), "reference": str(reference.path)}
    write_file(folder / RECORD, json.dumps({**models, **said, "permutations": orders}).encode() + b"\n")
