"""How alike the units of two models are on the same texts: the correlation of each unit with each of the other's.

What the units of a permutation are on texts: hidden units of an MLP as they go into `down_proj`; channels of
attention heads as they go into `o_proj`; coordinates of the residual stream as each layer leaves it, the mean of the
layers' correlations. Sums are of float64, around the mean, and no activations are kept.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.artefacts.passes import forward, rounds
from evaluation.artefacts.texts import Text
from evaluation.unlike.pair import MOST_POSITIONS, Pair
from evaluation.unlike.taps import Tap, tapped, unpadded
from merging.permuting.specification import Specification

_STILL = 1e-10  # of the mean square: units that vary less are constant, and what is left is rounding


class CrossSums:
    """The running sums of one set of units.

    Around the means (Chan, Golub and LeVeque's update): coordinates with large means would drown the others.

    Args:
        width: units of either model.
        device: where the sums lie.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self._cross = torch.zeros((width, width), dtype=torch.float64, device=device)  # Σ (x − x̄)(y − ȳ)ᵀ
        self._spread = torch.zeros((2, width), dtype=torch.float64, device=device)  # Σ (x − x̄)² of either
        self._mean = torch.zeros_like(self._spread)
        self._count = 0

    def add(self, ours: Tensor, theirs: Tensor) -> None:
        """Counts activations on the same tokens in, [tokens, width] each."""
        fresh = len(ours)
        if not fresh:
            return
        both = torch.stack([each.to(self._mean) for each in (ours, theirs)])
        mean, total = both.mean(1), self._count + fresh
        both -= mean[:, None]
        step, share = mean - self._mean, self._count * fresh / total
        self._cross.addmm_(both[0].mT, both[1]).addr_(step[0], step[1], alpha=share)
        self._spread += both.square().sum(1) + step.square() * share
        self._mean += step * (fresh / total)
        self._count = total

    def clear(self) -> None:
        """Forgets all that was added."""
        for each in (self._cross, self._spread, self._mean):
            each.zero_()
        self._count = 0

    def correlations(self) -> Tensor:
        """Of our units (rows) with theirs (columns), float64 [width, width]; 0 for units that never change."""
        moves = self._spread > _STILL * (self._spread + self._count * self._mean.square())
        scale = torch.where(moves, self._spread.rsqrt(), 0.0)
        return scale[0][:, None] * self._cross * scale[1]


@dataclass(frozen=True)
class _Watched:
    """One end of two modules, whose channels are units of a permutation."""

    permutation: str
    ours: Tap
    theirs: Tap
    width: int

    @property
    def size(self) -> int:
        """Bytes: the sums, and one batch of both models."""
        return 8 * self.width * (self.width + 2 * MOST_POSITIONS)


def similarities(pair: Pair, specification: Specification, texts: list[Text]) -> Iterator[tuple[str, Tensor]]:
    """Correlations by a permutation's name, as `matching.from_activations` takes them, one after another.

    Args:
        pair: the reference, and the model whose units are to be put in its order.
        specification: of both.
        texts: what both read, several times where the sums do not fit in memory at once.

    Raises:
        InvalidModel: a model computes NaN or infinity.
        MemoryError: one sequence alone does not fit.
    """
    watched, stream = _watched(pair, specification), None
    layers = sum(each.permutation == "residual" for each in watched)
    for part in rounds(watched, lambda each: each.size, pair.room):
        for each, sums in zip(part, _sums(pair, part, texts), strict=True):
            found = sums.correlations()
            if each.permutation != "residual":
                yield each.permutation, found.cpu()
            else:
                stream = found / layers if stream is None else stream + found / layers
    if stream is not None:
        yield "residual", stream.cpu()


def _sums(pair: Pair, watched: Sequence[_Watched], texts: list[Text]) -> list[CrossSums]:
    """One reading of all texts."""
    device = pair.ours.live.device
    sums = [CrossSums(each.width, device) for each in watched]
    ours = {str(i): each.ours for i, each in enumerate(watched)}
    theirs = {str(i): each.theirs for i, each in enumerate(watched)}
    seen: dict[str, Tensor] = {}

    def read(batch: Sequence[Text]) -> None:
        def keep(name: str, values: Tensor) -> None:
            seen[name] = pair.ours.finite(unpadded(values, batch))

        def add(name: str, values: Tensor) -> None:
            sums[int(name)].add(seen.pop(name), pair.theirs.finite(unpadded(values, batch)))

        with tapped(ours, keep):
            forward(pair.ours.live, batch)
        with tapped(theirs, add):
            forward(pair.theirs.live, batch)

    def restart() -> None:
        seen.clear()
        for each in sums:
            each.clear()

    pair.read(texts, read, restart)
    return sums


def _watched(pair: Pair, specification: Specification) -> list[_Watched]:
    """Where the units of each permutation are seen."""
    found = []
    for each in specification.permutations:
        if each.kind in ("mlp", "heads"):
            name = next(site.tensor for site in each.sites if site.axis == 1)  # what reads them: down_proj, o_proj
            width = pair.ours.tensors[name].shape[1]
            taps = [Tap(side.module(name), "input") for side in (pair.ours, pair.theirs)]
            found.append(_Watched(each.name, taps[0], taps[1], width))
        elif each.kind == "residual":
            after = range(1, min(pair.ours.depth, pair.theirs.depth) + 1)
            found += [_Watched(each.name, pair.ours.stream(k), pair.theirs.stream(k), each.size) for k in after]
    return found
