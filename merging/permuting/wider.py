"""Writes the average of aligned models as one checkpoint with wider MLPs: units that match badly stay apart.

Everything but the MLPs is the weighted mean; of the MLPs `widening.py` says what becomes. The folder appears whole or
not at all (`merging.folder`). One layer's MLPs of all models are in memory at a time.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

from merging.checkpoint import SINGLE, Checkpoint
from merging.companions import copy_companions
from merging.configfile import as_bytes, tied
from merging.errors import InvalidModel, InvalidRecipe
from merging.fingerprint import is_finite
from merging.folder import appearing, write_file
from merging.permuting.decoder import specify
from merging.permuting.specification import Permutation
from merging.permuting.widening import Mlp, agreement, separate_count, widened
from merging.weightfiles import Shape, write_weights

RECORD = "widening.json"
SCHEMA = "mergesearch/widening/v1"
_FIELD = "intermediate_size"


@dataclass(frozen=True)
class Widened:
    """What was written.

    Attributes:
        before, after: hidden units of each MLP.
        similarity: by layer, the mean agreement of the units that were merged, 1 where none was.
    """

    before: int
    after: int
    similarity: Mapping[str, float]


def widen(experts: Sequence[Checkpoint], to: Path, *, ratio: float, weights: Sequence[float] | None = None) -> Widened:
    """Writes the weighted average of experts whose units stand in one order, with some of their MLPs' units apart.

    Layout, dtypes and companions are the first expert's; its config.json names the new `intermediate_size`. In
    `widening.json` stands what was merged how.

    Args:
        experts: two or more, of one shape; aligned (`merging.permuting.export`), or the average is noise.
        to: the folder to create; its parent must exist.
        ratio: the share of each MLP's units that stay apart: 0 gives the plain average, 1 puts the MLPs side by side.
        weights: one an expert, none negative; None: all the same. They are divided by their sum.

    Raises:
        InvalidModel: a model is not understood or not finite, or they differ in tensors or shapes.
        InvalidRecipe: fewer than two experts, a ratio outside [0, 1], or weights that are none.
        OutputError: `to` exists or cannot be written. Nothing is left behind, whatever is raised.
    """
    shares = _shares(experts, weights)
    if not 0 <= ratio <= 1:
        problem = "is no share of the units"
        raise InvalidRecipe("ratio", ratio, problem, "use a number from 0 (all are merged) to 1 (none is)")
    first = experts[0]
    mlps = specify(_shapes(first), first.config, key=first.key).permutations
    before = _units(first, mlps)
    for other in experts[1:]:
        _check_alike(first, other)
    work = _Work(experts, shares, ratio, {site.tensor: mlp for mlp in mlps for site in mlp.sites})
    after = before + (len(experts) - 1) * separate_count(before, ratio)
    with appearing(to) as folder:
        files = [(file, [work.shape(entry.name, after) for entry in held]) for file, held in first.files()]
        write_weights(folder, files, work.fill, indexed=SINGLE not in first.shards)
        copy_companions(first.path, folder)
        write_file(folder / "config.json", as_bytes(tied(dict(first.config) | {_FIELD: after}, first)))
        said = {"weights": shares, "ratio": ratio, _FIELD: {"before": before, "after": after}}
        record = {"schema": SCHEMA, "experts": [str(each.path) for each in experts], **said}
        write_file(folder / RECORD, as_bytes(record | {"similarity": work.similarity}))
    return Widened(before, after, work.similarity)


class _Work:
    """The merging of one tensor after another.

    Args:
        mlps: of each tensor that has hidden units, which.
    """

    def __init__(
        self, experts: Sequence[Checkpoint], shares: Sequence[float], ratio: float, mlps: Mapping[str, Permutation]
    ) -> None:
        self._experts, self._shares, self._ratio, self._mlps = experts, shares, ratio, mlps
        self.similarity: dict[str, float] = {}
        # a layer's tensors lie together in nearly every checkpoint; in others the layer is merged again
        self._merged: Callable[[str], Mapping[str, Tensor]] = lru_cache(2)(self._merge)
        self._named = {mlp.name: mlp for mlp in mlps.values()}

    def shape(self, name: str, units: int) -> Shape:
        """Of the result's tensor."""
        entry = self._experts[0].entry(name)
        shape = list(entry.shape)
        for site in self._mlps[name].sites if name in self._mlps else ():
            if site.tensor == name:
                shape[site.axis] = site.repeats * units
        return name, entry.dtype, tuple(shape)

    def fill(self, name: str, out: Tensor) -> None:
        """Writes the result's tensor."""
        if name in self._mlps:
            out.copy_(self._merged(self._mlps[name].name)[name])
        elif not out.is_floating_point():
            out.copy_(self._experts[0].tensor(name))
        else:
            out.copy_(_mean(self._shares, [_finite(each, name) for each in self._experts]))

    def _merge(self, name: str) -> Mapping[str, Tensor]:
        """One MLP's tensors, by name; a bias behind the MLP takes the mean like everything else."""
        mlp = self._named[name]
        models = [_mlp(mlp, each) for each in self._experts]
        similarity = agreement(models)
        count = separate_count(len(similarity), self._ratio)
        kept = similarity.sort().values[count:]
        self.similarity[name] = float(kept.mean()) if len(kept) else 1.0
        found = widened(models, self._shares, similarity, self._ratio)
        return _tensors(mlp, found, self._experts[0])


def _mlp(mlp: Permutation, model: Checkpoint) -> Mlp:
    """The units of one model: rows of what reads, weights and biases side by side, and columns of what writes.

    All that reads is `up`, whatever it is called: which of its numbers are gates means nothing to the merge.
    """
    rows, down = [], torch.zeros(0, mlp.size)
    for site in mlp.sites:
        tensor = _finite(model, site.tensor).float()
        if site.axis == 1:
            down = tensor
        else:
            parts = tensor.reshape(site.repeats, mlp.size, -1)
            rows += list(parts)
    return Mlp(torch.zeros(mlp.size, 0), torch.cat(rows, 1), down)


def _tensors(mlp: Permutation, found: Mlp, model: Checkpoint) -> dict[str, Tensor]:
    """The inverse of `_mlp`: every tensor, wider."""
    made, start, units = {}, 0, len(found.up)
    for site in mlp.sites:
        shape = model.entry(site.tensor).shape
        if site.axis == 1:
            made[site.tensor] = found.down
            continue
        width = math.prod(shape[1:])
        parts = found.up[:, start : start + site.repeats * width].reshape(units, site.repeats, width)
        made[site.tensor] = parts.movedim(1, 0).reshape(site.repeats * units, *shape[1:])
        start += site.repeats * width
    return made


def _mean(shares: Sequence[float], tensors: Sequence[Tensor]) -> Tensor:
    """Σ w_t X_t, float64."""
    total = torch.zeros_like(tensors[0], dtype=torch.float64)
    for tensor, share in zip(tensors, shares, strict=True):
        total.add_(tensor.double(), alpha=share)
    return total


def _finite(model: Checkpoint, name: str) -> Tensor:
    tensor = model.tensor(name)
    if not is_finite(tensor):
        problem = f"has NaN or infinity in tensor {name}"
        raise InvalidModel(model.key, str(model.path), problem, "use a checkpoint that trained to the end")
    return tensor


def _shapes(model: Checkpoint) -> dict[str, tuple[int, ...]]:
    return {name: tuple(model.entry(name).shape) for name in model.names}


def _shares(experts: Sequence[Checkpoint], weights: Sequence[float] | None) -> list[float]:
    """The weights, summing to 1."""
    if len(experts) < 2:
        raise InvalidRecipe("experts", len(experts), "are too few to merge", "name two or more")
    given = [1.0] * len(experts) if weights is None else list(weights)
    if len(given) != len(experts):
        problem = f"are not as many as the experts, {len(experts)}"
        raise InvalidRecipe("weight", len(given), problem, "give one an expert, in their order, or none")
    for each in given:
        if not (math.isfinite(each) and each >= 0):
            raise InvalidRecipe("weight", each, "is no weight", "use numbers from 0 on")
    if not sum(given):
        raise InvalidRecipe("weight", 0, "is the weight of every expert", "give one of them a weight above 0")
    return [each / sum(given) for each in given]


def _units(model: Checkpoint, mlps: Iterable[Permutation]) -> int:
    """The hidden units of every layer's MLP."""
    named, sizes = model.config.get(_FIELD), {mlp.size for mlp in mlps}
    if sizes != {named}:
        problem = f"is not the size of its MLPs ({', '.join(map(str, sorted(sizes)))})"
        remedy = "use a model whose layers are all of that one size"
        raise InvalidModel(f"{model.key}: {_FIELD}", named, problem, remedy)
    return sizes.pop()


def _check_alike(first: Checkpoint, other: Checkpoint) -> None:
    ours, theirs = _shapes(first), _shapes(other)
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            here, there = (_said(shapes.get(name)) for shapes in (theirs, ours))
            problem = f"is {here} here and {there} in the first expert"
            raise InvalidModel(other.key, name, problem, "merge models of one architecture and size")


def _said(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else f"of shape {list(shape)}"
