"""Writes a copy of a checkpoint in another model's coordinates: its residual stream rotated, its units in their order.

Where a permutation only says which coordinate is which, a rotation may mix them. Its norms have the reference's scales
afterwards: each norm's own goes into the matrices that read what it gives (`rotation.py`), and these are divided by the
reference's. So the copy computes what the expert computes, and can be averaged with the reference as it is.
"""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging.checkpoint import Checkpoint
from merging.configfile import as_bytes
from merging.errors import InvalidModel
from merging.folder import appearing, write_file
from merging.permuting.decoder import check_parts, specify
from merging.permuting.export import (
    Find,
    Found,
    by_weights,
    require_finite,
    specify_both,
    write_as,
    write_beside,
    write_ordered,
    write_record,
)
from merging.permuting.matching import Match, cosine
from merging.permuting.rotation import HEAD, folded, norm_before, offset, require_turnable, turned
from merging.permuting.specification import Specification
from merging.permuting.stitching import Turn

LEAST = 1e-3
"""Of a norm's mean |scale|: reference scales below it are raised to it, for matrices are divided by them."""
_SCRATCH = ".rotated"
_FIELDS = ("model_type", "hidden_size", "vocab_size")


@dataclass(frozen=True)
class Turning:
    """How a stream is turned.

    Attributes:
        turn: leads from the reference's stream to the expert's; its scale is not used.
        said: what else the record says.
    """

    turn: Turn
    said: Mapping[str, Any]


def align_rotated(
    expert: Checkpoint,
    reference: Checkpoint,
    to: Path,
    turning: Callable[[], Turning],
    *,
    parts: Sequence[str] = ("mlp", "attention"),
    find: Find | None = None,
) -> Match:
    """Writes the expert with its stream in the reference's coordinates, and its units in the order of the reference's.

    Layout, dtypes, config.json and companions are the expert's; numbers are rounded to its dtypes once. Units are
    matched once the stream is turned, by weights with their norms' scales in them. Needs twice the room on the disk.

    Args:
        expert: the model to bring into other coordinates.
        reference: the model that has them: of one architecture and size, and of one vocabulary, row by row.
        to: the folder to create; its parent must exist.
        turning: finds how to turn the stream, once the models were checked.
        parts: which units are matched: `mlp`, `attention`, or `all`; `residual` is rotated in any case.
        find: finds their order; None: by weights.

    Raises:
        InvalidModel: a model is not understood, not finite, tied, or cannot be turned; or they do not fit.
        InvalidRecipe: no such part.
        OutputError: `to` exists or cannot be written. Nothing is left behind, whatever is raised.
    """
    with appearing(to) as folder:
        units = tuple(part for part in check_parts(parts) if part != "residual")
        whole, found = _require_rotatable(expert, reference), turning()
        scales, raised = _scales(expert, reference)
        rotated = _rotate(expert, found.turn, scales, folder / _SCRATCH)
        match, said = _match(rotated, reference, units, find or by_weights())
        write_ordered(rotated, whole, match, folder)
        write_beside(expert, folder)
        how = {"parts": [*units, "residual"], "residual": "rotated", **found.said, "raised": raised, **said}
        alike = _similarity(whole, expert, reference, rotated, match)
        write_record(expert, reference, {**how, "similarity": alike}, match, folder)
        shutil.rmtree(folder / _SCRATCH)
    return match


def _require_rotatable(expert: Checkpoint, reference: Checkpoint) -> Specification:
    """All permutations of both models, which have been looked at.

    Raises:
        InvalidModel: one is not understood, cannot be turned or is not finite, or they differ.
    """
    remedy = "align models of one architecture and size"
    for field in _FIELDS:
        ours, theirs = reference.config.get(field), expert.config.get(field)
        if ours != theirs:
            raise InvalidModel(f"{expert.key}: {field}", theirs, f"is {ours!r} in {reference.path}", remedy)
    for model in (expert, reference):
        require_turnable(model)
        specify({name: model.entry(name).shape for name in model.names}, model.config, ("all",), model.key)
        if HEAD not in model.names:
            problem = "has a head tied to its embedding: rotated, the two differ, for the head reads a norm's scale"
            remedy = f"save both models with tie_word_embeddings false and a {HEAD} of their own"
            raise InvalidModel(model.key, str(model.path), problem, remedy)
    whole = specify_both(expert, reference, ("all",))
    for model in (reference, expert):
        require_finite(model, whole)
    return whole


def _scales(expert: Checkpoint, reference: Checkpoint) -> tuple[dict[str, Tensor], dict[str, int]]:
    """What each norm of the result scales by, float64 [d], as its dtype has it; how many were raised, where any were.

    Raises:
        InvalidModel: a norm of the reference is 0 throughout.
    """
    norms = {norm for name in expert.names if (norm := norm_before(expert, name)) is not None}
    scales: dict[str, Tensor] = {}
    raised: dict[str, int] = {}
    for norm in sorted(norms):
        dtype, more = expert.entry(norm).dtype, offset(expert)
        scale = reference.tensor(norm).to(dtype).double() + more
        if not bool(scale.any()):
            remedy = "use a model whose norms let something through"
            raise InvalidModel(reference.key, str(reference.path), f"scales everything by 0 in {norm}", remedy)
        least = max(LEAST * float(scale.abs().mean()), more * torch.finfo(dtype).eps)  # near −more no finer are stored
        low = scale.abs() < least
        scale[low] = torch.full_like(scale[low], least).copysign(scale[low])
        scales[norm] = (scale - more).to(dtype).double() + more
        if bool(low.any()):
            raised[norm] = int(low.count_nonzero())
    return scales, raised


def _rotate(expert: Checkpoint, turn: Turn, scales: Mapping[str, Tensor], folder: Path) -> Checkpoint:
    """The expert with its stream turned and other scales in its norms, as a checkpoint of its own.

    Raises:
        InvalidModel: its dtype cannot hold the numbers.
    """
    turn = Turn(turn.rotation, 1.0)

    def fill(name: str, out: Tensor) -> None:
        if name in scales:
            out.copy_(scales[name] - offset(expert))
            return
        tensor, norm = turned(expert, turn, name), norm_before(expert, name)
        out.copy_(tensor if norm is None else tensor / scales[norm])
        if not bool(torch.isfinite(out).all()):
            problem = f"stores {name} as {out.dtype}, which cannot hold it with the reference's norm before it"
            raise InvalidModel(expert.key, str(expert.path), problem, "save the model as float32, then align it")

    folder.mkdir()
    write_as(expert, fill, folder)
    write_file(folder / "config.json", as_bytes(expert.config))
    return Checkpoint(folder, expert.key)


def _match(rotated: Checkpoint, reference: Checkpoint, parts: Sequence[str], find: Find) -> Found:
    """The orders of the units, and what is said of how they were found."""
    if not parts:
        return Match({}, 0, 0.0), {}
    specification = specify_both(rotated, reference, parts)
    return find(specification, lambda name: folded(reference, name), lambda name: folded(rotated, name))


def _similarity(
    whole: Specification, expert: Checkpoint, reference: Checkpoint, rotated: Checkpoint, match: Match
) -> dict[str, float]:
    """The cosine of the expert with the reference, as it was and as it is written."""
    before = cosine(whole, reference.tensor, expert.tensor, {})
    return {"before": before, "after": cosine(whole, reference.tensor, rotated.tensor, match.orders)}
