"""Estimates the base of models whose base is missing, from low-rank fine-tunes of it: Spectral DeTuning.

Each model is X_t = θ₀ + M_t with M_t of low rank (a LoRA that was merged). Alternately, M_t is the best approximation
of X_t − θ₀ of some rank, and θ₀ the mean of X_t − M_t (arXiv:2402.10208). The rank grows from 1 whenever that no longer
helps. It needs three models or more, trained independently, at ranks far below the matrices' own. Of full fine-tunes
it explains little, and what it gives is farther from their base than their mean is: look at `unexplained`.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from merging.checkpoint import SINGLE, Checkpoint
from merging.companions import copy_companions
from merging.configfile import tied
from merging.errors import InvalidModel
from merging.fingerprint import is_finite
from merging.folder import appearing, write_file
from merging.models import ModelSet
from merging.roles import role
from merging.weightfiles import write_weights

FEWEST = 3
RECORD = "base_estimate.json"
_PATIENCE, _PROGRESS = 15, 1e-4  # iterations without a loss this share lower: the rank has given what it can
_EXACT = 1e-24  # of the variance: nothing is left to explain
_SPARE = 8  # directions iterated beyond the rank, which makes the others converge faster
_DETUNED = ("matrix", "embedding", "stack")


def estimate_base(
    checkpoints: Sequence[Path],
    to: Path,
    *,
    rank: int = 16,
    iterations: int = 300,
    device: str = "cpu",
    progress: Callable[[str], None] | None = None,
) -> None:
    """Writes an estimate of the models' common base as a folder that `from_pretrained` loads.

    What is equal in all models is copied bit for bit. Matrices, embeddings, heads and each of a stack of matrices are
    estimated; every other tensor is the mean. Layout, dtypes, config and companions are the first model's. In
    `base_estimate.json` stands what is `unexplained` of the worst matrix. Memory: some ten tensors, and one a model.

    Args:
        checkpoints: the models' folders, three or more.
        to: the folder to create; its parent must exist.
        rank: the largest rank of the fine-tunes.
        iterations: how many to spend on one matrix at most.
        device: where to compute.
        progress: called with each tensor's name when it is done.

    Raises:
        InvalidModel: there are too few models, one cannot be read, or they do not fit together.
        OutputError: `to` exists or cannot be written. Nothing is left behind, whatever is raised.
    """
    with appearing(to) as folder:
        models, shares = _open(checkpoints), [0.0]

        def fill(name: str, out: Tensor) -> None:
            made, unexplained = _tensor(models, name, rank, iterations, device)
            shares.append(unexplained)
            out.copy_(made)
            if progress is not None:
                progress(name)

        _write_like(models.base, fill, folder)
        how = {"method": "spectral detuning", "rank": rank, "iterations": iterations, "unexplained": max(shares)}
        _write_json(folder / RECORD, how | {"models": [str(path) for path in checkpoints]})


class Estimate(NamedTuple):
    """The estimated base of one matrix.

    Attributes:
        base: float64 [out, in], on the models' device.
        unexplained: the share of the models' variance around their mean that their low ranks leave; if it is more
            than the models' rounding, they are not what the method assumes.
    """

    base: Tensor
    unexplained: float


def estimate(models: Sequence[Tensor], *, rank: int = 16, iterations: int = 300) -> Estimate:
    """Estimates the base of one matrix: a function of the arguments alone.

    The approximations come from subspace iterations that go on from one round to the next, at T·out·in·rank
    operations a round: a full decomposition each round would cost min(out, in) / rank times as much.

    Args:
        models: T matrices [out, in], finite.
        rank: the largest rank of a fine-tune.
        iterations: how many rounds at most.
    """
    base = _mean(models)
    spread = loss = sum(float((model.double() - base).square().mean()) for model in models)
    width = min(rank + _SPARE, *base.shape)
    start = torch.randn((base.shape[1], width), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    bases = [start.to(base.device)] * len(models)
    ranks = _Ranks(min(rank, width), iterations)
    for _ in range(iterations):
        drift, loss = torch.zeros_like(base), 0.0
        for t, model in enumerate(models):
            rest = model.double() - base
            approximation, bases[t] = _truncated(rest, bases[t], ranks.current)
            rest -= approximation
            drift += rest / len(models)
            loss += float(rest.square().mean())
        base += drift
        loss = max(0.0, loss - len(models) * float(drift.square().mean()))  # the variance around the new base
        if loss <= _EXACT * spread or ranks.is_done(loss):
            break
    return Estimate(base, loss / spread if spread else 0.0)


def _mean(models: Sequence[Tensor]) -> Tensor:
    """The mean, float64; one model at a time is widened."""
    total = torch.zeros_like(models[0], dtype=torch.float64)
    for model in models:
        total += model
    return total / len(models)


def _truncated(matrix: Tensor, right: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The approximation [out, in] of that rank within the range of matrix · right, and a better `right` [in, width]."""
    frame = torch.linalg.qr(matrix @ right).Q
    left, values, rows = torch.linalg.svd(frame.mT @ matrix, full_matrices=False)
    return frame @ (left[:, :rank] * values[:rank]) @ rows[:rank], rows.mT.contiguous()


class _Ranks:
    """Decides the rank of the next round: twice the last once that has stopped helping, the highest from half time."""

    def __init__(self, highest: int, iterations: int) -> None:
        self.current = 1
        self._highest, self._half = highest, iterations // 2
        self._best, self._since, self._round = float("inf"), 0, 0

    def is_done(self, loss: float) -> bool:
        """Takes a round's loss; whether more rounds are useless."""
        self._round += 1
        self._since = 0 if loss < self._best * (1 - _PROGRESS) else self._since + 1
        self._best = min(self._best, loss)
        stuck = self._since > _PATIENCE
        if self.current == self._highest:
            return stuck
        if stuck or self._round >= self._half:
            self.current = self._highest if self._round >= self._half else min(self._highest, 2 * self.current)
            self._best, self._since = float("inf"), 0
        return False


def _open(checkpoints: Sequence[Path]) -> ModelSet:
    """The models; the first stands where the base would."""
    if len(checkpoints) < FEWEST:
        remedy = f"give {FEWEST} or more fine-tunes of one base"
        raise InvalidModel("checkpoints", len(checkpoints), "models do not determine a base", remedy)
    first, *others = checkpoints
    keys = [f"checkpoints[{i}]" for i in range(1, len(checkpoints))]
    named = {f"{i:06}": path for i, path in enumerate(others)}  # sorted as they were given
    return ModelSet.open(first, named, base_key="checkpoints[0]", expert_keys=keys)


def _tensor(models: ModelSet, name: str, rank: int, iterations: int, device: str) -> tuple[Tensor, float]:
    """One tensor of the estimated base, of the first model's dtype, and what is unexplained of it."""
    first, others = models.stack(name)
    if not first.is_floating_point() or all(torch.equal(first, other) for other in others):
        return first, 0.0
    for model, each in zip((models.base, *models.experts.values()), (first, *others), strict=True):
        if not is_finite(each):
            problem = f"has NaN or infinity in tensor {name}"
            raise InvalidModel(model.key, str(model.path), problem, "use a checkpoint that trained to the end")
    stack = [each.to(device) for each in (first, *others)]
    kind = role(name, first.shape, models.base.config)
    if kind not in _DETUNED:
        made, unexplained = _mean(stack), 0.0
    elif kind == "stack":
        slices = zip(*(each.unbind() for each in stack), strict=True)
        parts = [estimate(each, rank=rank, iterations=iterations) for each in slices]
        made, unexplained = torch.stack([part.base for part in parts]), max(part.unexplained for part in parts)
    else:
        made, unexplained = estimate(stack, rank=rank, iterations=iterations)
    return made.to(first.dtype).cpu(), unexplained


def _write_like(first: Checkpoint, fill: Callable[[str, Tensor], None], folder: Path) -> None:
    """The weights laid out as the first model's, config.json, the tokenizer and the other files beside them."""
    files = [(file, [(e.name, e.dtype, e.shape) for e in held]) for file, held in first.files()]
    write_weights(folder, files, fill, indexed=SINGLE not in first.shards)
    copy_companions(first.path, folder)
    config = tied(dict(first.config), first)
    _write_json(folder / "config.json", config)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_file(path, json.dumps(content, indent=2).encode() + b"\n")
