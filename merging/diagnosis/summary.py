"""What was measured, as figures for people and programs: per expert, per pair, per layers and module. No tensors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import combinations, pairwise

from merging.diagnosis.magnitudes import BINS, PER_OCTAVE, edges, quantiles, share_above
from merging.diagnosis.measure import Diagnosis, Measured
from merging.diagnosis.sums import Sums
from merging.layers import Layer, Module

DARE_LIMIT = 0.002  # |τ| up to which dropping elements at random is known to work (DARE, arXiv 2311.03099)
SHARES = {"median": 0.5, "90%": 0.9, "99%": 0.99, "largest": 1.0}
MODULES: tuple[Module, ...] = ("attention", "mlp", "other")
_HALF_OCTAVE = 53  # bins of PER_OCTAVE up to √2: halves of an octave are equally wide on a logarithmic axis


@dataclass(frozen=True)
class ExpertSummary:
    """One expert against the base.

    Attributes:
        relative_norm: ‖τ‖ / ‖θ_0‖.
        matrix_norm, matrix_cosine: ‖τ‖ / ‖θ_0‖ and cos(X, θ_0) over the tensors of two dimensions or more: the
            vectors of norm layers stay near 1 in any model and would hide that another base is another.
        mean_magnitude: mean |τ|.
        quantiles: of |τ|, by name.
        above_dare: the share of the elements it moves by more than `DARE_LIMIT`, among those it moves.
        unchanged: share of elements exactly as in the base.
        frozen: tensors exactly as in the base.
        tensors: how many were compared.
        broken: NaN and infinite elements, and the first tensor that holds one.
        histogram: share of the elements by magnitude: (from which |τ|, share), in half octaves; zeros left out.
    """

    name: str
    norm: float
    relative_norm: float
    matrix_norm: float
    matrix_cosine: float
    mean_magnitude: float
    quantiles: Mapping[str, float]
    above_dare: float
    unchanged: float
    frozen: tuple[str, ...]
    tensors: int
    broken: int
    broken_tensor: str | None
    histogram: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class PairSummary:
    """Two experts against each other; the shares are of what both move."""

    first: str
    second: str
    cosine: float
    conflict: float
    weighted_conflict: float
    overlap: float
    chance_overlap: float


@dataclass(frozen=True)
class GroupSummary:
    """A range of layers and one module, or what stands before or after the layers.

    Attributes:
        layers: "0-3", "7", "before" or "after".
        relative_norms: ‖τ‖ / ‖θ_0‖ by expert.
        norm_shares: the part of the expert's whole ‖τ‖² that lies here, by expert.
        pairs: every pair here.
    """

    layers: str
    module: Module
    elements: int
    relative_norms: Mapping[str, float]
    norm_shares: Mapping[str, float]
    pairs: tuple[PairSummary, ...]


@dataclass(frozen=True)
class Summary:
    """All figures; lists in the order of the experts, groups in the order of the layers."""

    experts: tuple[ExpertSummary, ...]
    pairs: tuple[PairSummary, ...]
    modules: Mapping[Module, tuple[PairSummary, ...]]
    groups: tuple[GroupSummary, ...]
    base_broken: int
    layer_count: int
    seconds: float


def summarise(found: Diagnosis, ranges: int) -> Summary:
    """The figures, with the layers in so many ranges of about equal length at most."""
    total = found.total()
    modules = {m: found.total([t for t in found.tensors if t.place.module == m]) for m in MODULES}
    return Summary(
        experts=tuple(_expert(found, total, index) for index in range(len(found.experts))),
        pairs=tuple(_pairs(found.experts, total)),
        modules={module: tuple(_pairs(found.experts, sums)) for module, sums in modules.items()},
        groups=tuple(_groups(found, total, ranges)),
        base_broken=int(total.broken[0]),
        layer_count=found.layer_count,
        seconds=found.seconds,
    )


def _expert(found: Diagnosis, total: Sums, index: int) -> ExpertSummary:
    counts, elements = found.counts[index], float(total.elements[index])
    compared = [t for t in found.tensors if t.sums.elements[index] > 0]
    matrices = found.total([t for t in compared if t.dimensions >= 2])
    broken = (t.name for t in compared if t.sums.broken[index + 1] > 0)
    return ExpertSummary(
        name=found.experts[index],
        norm=float(total.norms[index]),
        relative_norm=float(total.relative_norms[index]),
        matrix_norm=float(matrices.relative_norms[index]),
        matrix_cosine=float(matrices.cosines_to_base[index]),
        mean_magnitude=float(total.absolute[index]) / max(1.0, elements),
        quantiles=dict(zip(SHARES, quantiles(counts, list(SHARES.values())), strict=True)),
        above_dare=share_above(counts, DARE_LIMIT),
        unchanged=float(total.unchanged[index]) / max(1.0, elements),
        frozen=tuple(t.name for t in compared if t.sums.unchanged[index] == t.sums.elements[index]),
        tensors=len(compared),
        broken=int(total.broken[index + 1]),
        broken_tensor=next(broken, None),
        histogram=tuple(_histogram(counts[1:].tolist(), elements)),
    )


def _histogram(counts: list[int], elements: float) -> Iterable[tuple[float, float]]:
    """Half octaves from the first to the last that hold anything; `counts` begins with bin 1."""
    counts = [0, *counts]
    starts = [octave + half for octave in range(0, BINS, PER_OCTAVE) for half in (0, _HALF_OCTAVE)]
    sums = [sum(counts[first:last]) for first, last in pairwise([*starts, BINS])]
    filled = [index for index, held in enumerate(sums) if held]
    if filled:
        span = range(filled[0], filled[-1] + 1)
        for index, edge in zip(span, edges([starts[index] for index in span]), strict=True):
            yield edge, sums[index] / elements


def _pairs(experts: tuple[str, ...], sums: Sums) -> Iterable[PairSummary]:
    tables = (sums.cosines, sums.conflicts, sums.weighted_conflicts, sums.overlaps, sums.chance_overlaps)
    lists = [table.tolist() for table in tables]
    for (i, first), (j, second) in combinations(enumerate(experts), 2):
        yield PairSummary(first, second, *(rows[i][j] for rows in lists))


def _groups(found: Diagnosis, total: Sums, ranges: int) -> Iterable[GroupSummary]:
    members: dict[tuple[int, str, Module], list[Measured]] = {}
    for tensor in found.tensors:
        order, layers = _range(tensor.place.layer, found.layer_count, ranges)
        members.setdefault((order, layers, tensor.place.module), []).append(tensor)
    squares = total.norms.square()
    for (_, layers, module), tensors in sorted(members.items()):
        sums = found.total(tensors)
        shares = sums.norms.square() / squares.where(squares > 0, squares.new_ones(()))
        yield GroupSummary(
            layers=layers,
            module=module,
            elements=int(sums.elements.max()),
            relative_norms=dict(zip(found.experts, sums.relative_norms.tolist(), strict=True)),
            norm_shares=dict(zip(found.experts, shares.tolist(), strict=True)),
            pairs=tuple(_pairs(found.experts, sums)),
        )


def _range(layer: Layer, count: int, ranges: int) -> tuple[int, str]:
    """Where the range of a layer stands in order, and what it is called."""
    if layer == "before":
        return -1, layer
    if layer == "after":
        return count, layer
    size = -(-count // ranges)
    first = layer // size * size
    last = min(first + size, count) - 1
    return first, str(first) if first == last else f"{first}-{last}"
