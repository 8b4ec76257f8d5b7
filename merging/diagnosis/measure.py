"""The one pass over the models: tensor by tensor, in chunks, so that memory holds a few chunks and no model.

What is not finite is counted and otherwise taken as unchanged. Does not judge (`warnings.py`) and groups nothing
(`summary.py`).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

import torch
from torch import Tensor

from merging.diagnosis.magnitudes import BINS, bins_of, count
from merging.diagnosis.opening import Facts, Misfit, Opened, open_all
from merging.diagnosis.permutation import Match, matches
from merging.diagnosis.sums import Sums, sums_of, thresholds_of, top_sums
from merging.layers import Place

# Elements of a model at a time: half a MiB of float64 stays in cache; below 2²⁴, so that counts in float32 are exact.
_CHUNK = 1 << 16
_TWINS = 1 - 1e-9  # cosine from which on two experts are compared number by number

Progress = Callable[[int, int], None]
"""Told the elements of the base that are done, and all of them."""


@dataclass(frozen=True)
class Measured:
    """One tensor of the base.

    Attributes:
        place: where it stands.
        dimensions: of its shape.
        sums: over all its elements.
    """

    name: str
    place: Place
    dimensions: int
    sums: Sums


@dataclass(frozen=True)
class Diagnosis:
    """Everything measured.

    Attributes:
        experts: the names of those that could be read: the order of every sum.
        facts: by model.
        layer_count: of the base.
        tensors: those that hold fractions.
        counts: how many elements of each expert's delta each bin of magnitude holds, int64 [T, BINS].
        matches: of the experts' hidden units with the base's.
        twins: pairs of experts with the same numbers, other than the base's.
        seconds: what measuring took.
    """

    experts: tuple[str, ...]
    facts: Mapping[str, Facts]
    misfits: tuple[Misfit, ...]
    layer_count: int
    tensors: tuple[Measured, ...]
    counts: Tensor
    matches: tuple[Match, ...]
    twins: tuple[tuple[str, str], ...]
    seconds: float

    def total(self, tensors: Sequence[Measured] | None = None) -> Sums:
        """The sums over some tensors, by default all."""
        found = Sums.zero(len(self.experts))
        for tensor in self.tensors if tensors is None else tensors:
            found = found + tensor.sums
        return found


@torch.no_grad()
def diagnose(base: Path, experts: Mapping[str, Path], progress: Progress | None = None) -> Diagnosis:
    """Reads every number of the models once and measures how the experts differ from the base and from each other.

    Args:
        base, experts: folders; what cannot be read is told in `Diagnosis.misfits` and measured without.
        progress: told after each tensor.
    """
    began = time.monotonic()
    models = open_all(base, experts)
    counts = torch.zeros((len(models.experts), BINS), dtype=torch.int64)
    tensors = tuple(_measured(models, counts, progress or (lambda done, total: None)))
    found = Diagnosis(
        experts=tuple(models.experts),
        facts=models.facts,
        misfits=models.misfits,
        layer_count=models.layout.layer_count,
        tensors=tensors,
        counts=counts,
        matches=tuple(matches(models)),
        twins=(),
        seconds=0.0,
    )
    return replace(found, twins=tuple(_twins(models, found)), seconds=time.monotonic() - began)


def _measured(models: Opened, counts: Tensor, progress: Progress) -> Iterator[Measured]:
    """Every tensor's sums; `counts` is added to on the way."""
    if models.base is None or not models.experts:
        return
    comparable = [models.comparable(expert) for expert in models.experts]
    names = [name for name in models.base.names if models.base.entry(name).dtype.is_floating_point]
    sizes = {name: models.base.tensor(name).numel() for name in names}
    places, done, total = models.layout.places, 0, sum(sizes.values())
    for name in names:
        base = models.base.tensor(name)
        own = [
            checkpoint.tensor(name) if name in fitting else None
            for checkpoint, fitting in zip(models.experts.values(), comparable, strict=True)
        ]
        sums, found = measure_tensor(base, own)
        counts += found
        yield Measured(name, places[name], base.dim(), sums)
        done += sizes[name]
        progress(done, total)


def measure_tensor(base: Tensor, experts: Sequence[Tensor | None]) -> tuple[Sums, Tensor]:
    """The sums over one tensor of every model, and how many elements of each delta each bin of magnitude holds.

    Args:
        base: any shape and floating dtype.
        experts: the same shape; None for an expert that lacks it.

    Returns:
        the sums, and int64 [T, BINS].
    """
    present = torch.tensor([expert is not None for expert in experts], dtype=torch.float64)
    sums, counts = Sums.zero(len(experts)), torch.zeros((len(experts), BINS), dtype=torch.int64)
    for rows in _chunks(base, experts):
        sums = sums + sums_of(rows, present)
        counts += count(bins_of(rows[1:]))
    counts *= present.long()[:, None]
    thresholds = thresholds_of(counts)
    top, shared = torch.zeros_like(sums.top), torch.zeros_like(sums.shared)
    for rows in _chunks(base, experts):  # which are the largest is known only now
        here, both = top_sums(rows, thresholds)
        top, shared = top + here, shared + both
    chance = torch.outer(top, top) / max(1, base.numel())
    return replace(sums, top=top, shared=shared, chance=chance), counts


def _chunks(base: Tensor, experts: Sequence[Tensor | None]) -> Iterator[Tensor]:
    """θ_0 and τ_1 … τ_T in pieces, float64 [T+1, n]; the delta of an expert that lacks the tensor is 0."""
    flat = base.reshape(-1)
    others = [None if expert is None else expert.reshape(-1) for expert in experts]
    for first in range(0, flat.numel(), _CHUNK):
        part = slice(first, first + _CHUNK)
        rows = torch.zeros((len(others) + 1, flat[part].numel()), dtype=torch.float64)
        rows[0] = flat[part]
        for row, other in zip(rows[1:], others, strict=True):
            if other is not None:
                torch.sub(other[part].double(), rows[0], out=row)
        yield rows


def _twins(models: Opened, found: Diagnosis) -> Iterator[tuple[str, str]]:
    """Pairs of experts with the same numbers; only those that look alike are compared, up to the first difference."""
    total = found.total()
    cosines, norms = total.cosines, total.norms
    for (i, first), (j, second) in combinations(enumerate(models.experts), 2):
        if float(cosines[i, j]) < _TWINS or not torch.isclose(norms[i], norms[j], rtol=1e-6):
            continue
        names = models.experts[first].names
        if names == models.experts[second].names and all(_same(models, first, second, name) for name in names):
            yield first, second


def _same(models: Opened, first: str, second: str, name: str) -> bool:
    one, other = models.experts[first].tensor(name), models.experts[second].tensor(name)
    return one.shape == other.shape and bool(torch.equal(one, other.to(one.dtype)))
