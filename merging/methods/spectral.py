"""Methods that join deltas through their singular vectors: decomposed once, one matrix product a candidate."""

from typing import NamedTuple

import torch
from torch import Tensor

from merging.linalg import Factors, polar, svd
from merging.methods.contract import DeltaMethod, Parameters
from merging.methods.matrices import MatrixMethod


class _Frames(NamedTuple):
    """The orthogonalised singular directions of all experts, K of them.

    Attributes:
        left, right: float32 [out, K] and [K, in].
        values: float32 [K], the singular values before orthogonalisation.
        owner: int64 [K], whose direction it is.
    """

    left: Tensor
    right: Tensor
    values: Tensor
    owner: Tensor


class _TsvM(MatrixMethod):
    """λ U⊥ diag(w_t σ) V⊥: each delta's first share·r/T singular directions, whitened together (arXiv:2412.00081).

    U⊥ and V⊥ are the polar factors of all experts' U and V side by side. A weight scales its expert's singular
    values, which come after the whitening. Null directions stay out: whitened, they would displace real ones.
    """

    def decompose(self, deltas: Tensor, parameters: Parameters) -> _Frames:
        floor, experts = parameters["floor"], len(deltas)
        rank = max(1, int(parameters["rank_share"] * min(deltas.shape[1:]) / experts))
        parts = [svd(delta, floor, rank=rank) for delta in deltas]
        left, right = torch.cat([p.left for p in parts], 1), torch.cat([p.right for p in parts], 0)
        counts = torch.tensor([len(p.values) for p in parts], device=deltas.device)
        owner = torch.repeat_interleave(torch.arange(experts, device=deltas.device), counts)
        values = torch.cat([p.values for p in parts])
        return _Frames(polar(left, floor).float(), polar(right, floor).float(), values.float(), owner)

    def join(self, deltas: Tensor, part: _Frames, weights: Tensor, parameters: Parameters) -> Tensor:
        return (part.left * (part.values * weights[part.owner])) @ part.right


class _Isotropic(MatrixMethod):
    """A method whose update is λ times one matrix that is made once."""

    def join(self, deltas: Tensor, part: Tensor, weights: Tensor, parameters: Parameters) -> Tensor:
        return part.clone()


class _IsoC(_Isotropic):
    """λ σ̄ U V of Σ τ_t = U Σ V, σ̄ the mean singular value (arXiv:2502.04959, Iso-C).

    The mean runs over the directions that are not null, which keeps the nuclear norm of Σ τ_t.
    """

    def decompose(self, deltas: Tensor, parameters: Parameters) -> Tensor:
        return _flat([svd(_total(deltas), parameters["floor"], scale=_scale(deltas))], parameters["floor"])


class _IsoCts(_Isotropic):
    """λ σ̄ U⊥ V⊥ of common and task-specific directions (arXiv:2502.04959, Iso-CTS).

    The first k of Σ τ_t = U Σ V, then from each expert the first m directions of what lies outside of them,
    (I − U_k U_kᵀ) τ_t, with k + T m = r and k nearest to `common` r (half a direction an expert goes to even m).
    U⊥, V⊥ are polar factors of all of them side by side, σ̄ the mean of all their singular values.
    """

    def decompose(self, deltas: Tensor, parameters: Parameters) -> Tensor:
        floor, scale, size = parameters["floor"], _scale(deltas), min(deltas.shape[1:])
        own = min(round((size - int(size * parameters["common"])) / len(deltas)), size // len(deltas))
        common = svd(_total(deltas), floor, rank=size - own * len(deltas), scale=scale)
        parts = [common]
        for exact in (delta.double() for delta in deltas if own):
            outside = exact - common.left @ (common.left.mT @ exact)
            parts.append(svd(outside, floor, rank=own, scale=scale))
        return _flat(parts, floor)


def _total(deltas: Tensor) -> Tensor:
    """Σ τ_t, float64."""
    return deltas.sum(0, dtype=torch.float64)


def _scale(deltas: Tensor) -> Tensor:
    """The largest singular value of a delta: what is null in a sum or a remainder is measured by what went in."""
    return torch.stack([torch.linalg.matrix_norm(delta.double(), ord=2) for delta in deltas]).max()


def _flat(parts: list[Factors], floor: float) -> Tensor:
    """Directions side by side, orthogonalised, each with the mean of the singular values: float32 [out, in]."""
    values = torch.cat([p.values for p in parts])
    left, right = polar(torch.cat([p.left for p in parts], 1), floor), polar(torch.cat([p.right for p in parts]), floor)
    return (left @ right).mul_(values.sum() / max(1, len(values))).float()


tsv_m: DeltaMethod = _TsvM()
iso_c: DeltaMethod = _IsoC()
iso_cts: DeltaMethod = _IsoCts()
