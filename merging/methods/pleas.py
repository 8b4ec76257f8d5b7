"""PLeaS: the matrix that makes the experts' mean output of what reaches it (arXiv:2407.02447), for unlike models.

RegMean asks each expert's matrix about that expert's inputs, which supposes that a channel means the same in all of
them. Here every expert's outputs are wanted, from inputs that are the merge's: in `pleas` the mean of the experts'
inputs on the same tokens, in `pleas_pp` those that come out of the merged layers before. Matrices alone are fitted;
everything else takes the weighted mean. The base is only what deltas are counted from.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from merging.methods.contract import DeltaMethod, Parameters, TensorContext
from merging.permuting.pleas import following_weight, pleas_weight, times


class Common(NamedTuple):
    """One run of a matrix' input channels, in `pleas`.

    Attributes:
        first: where the run begins.
        cross: z_iᵀ z_j of the experts, float32 [T, T, b, b]; or [T, T, b], each channel with itself alone.
    """

    first: int
    cross: Tensor


class Behind(NamedTuple):
    """One run of a matrix' input channels, in `pleas_pp`.

    Attributes:
        first: where the run begins.
        grams: x_tᵀ x_t behind the merged layers, float32 [T, b, b] or [T, b].
        moments: (z_t X_tᵀ − x_t θ₀ᵀ)ᵀ x_t, of expert t's own inputs z_t, float32 [T, out, b].
    """

    first: int
    grams: Tensor
    moments: Tensor


class Prepared(NamedTuple):
    """The runs of one matrix, and whether it is stored [in, out]."""

    runs: tuple[Common | Behind, ...]
    transposed: bool


Read = Callable[[Tensor, int, int, TensorContext], Common | Behind | None]
"""The run that begins at a channel, by its number, from deltas [T, out, in]; None if it was not measured."""


class _Fitted:
    """Solves for one matrix at a time, run by run; what has no measured inputs takes the weighted mean."""

    def __init__(self, read: Read) -> None:
        self._read = read

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> Prepared | None:
        """What does not depend on weights; None for a tensor that takes the mean."""
        if context.role not in ("matrix", "embedding") or not torch.isfinite(deltas).all():
            return None
        upright = deltas.mT if context.transposed else deltas
        runs: list[Common | Behind] = []
        first = 0
        while first < upright.shape[2]:
            run = self._read(upright, first, len(runs), context)
            if run is None:
                return None
            runs.append(run)
            first += _width(run)
        return Prepared(tuple(runs), context.transposed)

    def combine(self, deltas: Tensor, prepared: Prepared | None, weights: Tensor, parameters: Parameters) -> Tensor:
        """The update [*shape]."""
        shares = (weights.double() / weights.double().sum()).tolist()
        update = torch.zeros_like(deltas[0])
        for delta, share in zip(deltas, shares, strict=True):
            update.add_(delta, alpha=share)
        if prepared is None:
            return update
        upright, into = (x.mT if prepared.transposed else x for x in (deltas, update))
        for run in prepared.runs:
            columns = slice(run.first, run.first + _width(run))
            part, ridge = upright[:, :, columns], parameters["ridge"]
            if isinstance(run, Common):
                found = pleas_weight(part, run.cross, shares, ridge)
            else:
                found = following_weight(part, run.grams, run.moments, shares, ridge)
            into[:, columns] = found.float()
        return update


def _common(upright: Tensor, first: int, number: int, context: TensorContext) -> Common | None:
    """What the experts see of the same tokens."""
    rows = []
    for i, ours in enumerate(context.experts):
        row = []
        for j, theirs in enumerate(context.experts):
            least, other, turned = (i, theirs, False) if ours <= theirs else (j, ours, True)
            found = context.measured.tensor("common inputs", least, f"with.{other}.{number}")
            if found is None:
                return None
            row.append((found.mT if turned and found.dim() == 2 else found).to(upright.device))
        rows.append(torch.stack(row))
    return Common(first, torch.stack(rows))


def _behind(upright: Tensor, first: int, number: int, context: TensorContext) -> Behind | None:
    """What reaches the merge on each expert's texts, and what the expert makes of them there."""
    base = context.statistics.base().to(upright.device).double()
    base = base.mT if context.transposed else base
    grams, moments = [], []
    for t, delta in enumerate(upright):
        found = [context.measured.tensor("merged inputs", t, f"{part}.{number}") for part in ("gram", "cross")]
        gram, cross = (None if each is None else each.to(upright.device) for each in found)
        if gram is None or cross is None:
            return None
        columns = slice(first, first + len(gram))
        # counted from what the base would make of them: small updates keep their digits
        moment = times(delta[:, columns], cross) + times(base[:, columns], cross.double() - gram.double())
        grams.append(gram)
        moments.append(moment.float())
    return Behind(first, torch.stack(grams), torch.stack(moments))


def _width(run: Common | Behind) -> int:
    """How many channels a run has."""
    return (run.cross if isinstance(run, Common) else run.grams).shape[-1]


pleas: DeltaMethod = _Fitted(_common)
pleas_pp: DeltaMethod = _Fitted(_behind)
