"""KnOTS: deltas brought to one basis of their outputs, and merged there (arXiv:2410.19735).

[τ_1 | … | τ_T] = U S [V_1 | … | V_T] side by side, one decomposition for all experts; the coordinates S V_t are merged
element by element, and U turns the result back. Experts that were trained apart with low rank share few elements, but
directions; in the common basis elementwise methods compare like with like.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from merging import kernel
from merging.kernel.program import Chance, Cut, Keep, Program
from merging.linalg import FLOOR, svd
from merging.methods.contract import DeltaMethod, Parameters, TensorContext
from merging.methods.matrices import Decomposed, MatrixMethod
from merging.methods.sparse import kept_count

# What makes the sign of a column of U definite: its first element of at least this share of the largest is positive.
_LEADING = 0.5
_NOBODY = 1e-8  # weights that sum to less are divided by 1


class Frame(NamedTuple):
    """Deltas in their common basis, τ_t = basis · coordinates_t.

    Attributes:
        basis: float32 [out, k], orthonormal columns: U.
        coordinates: float32 [T, k, in]: S V_t.
        cuts: of each expert's coordinates, where the share that is kept ends; None: all are kept.
        chances: of each expert's coordinates, which are drawn; None: all are kept.
    """

    basis: Tensor
    coordinates: Tensor
    cuts: tuple[Cut, ...] | None = None
    chances: tuple[Chance, ...] | None = None


class _Knots(MatrixMethod):
    """λ U · merge(S V_1 … S V_T), the merge being TIES, DARE-TIES or the mean; weights matter only relatively.

    TIES keeps the `density` share of each expert's coordinates that is largest, elects signs by Σ w_t v_t and takes
    the weighted mean of those that agree; DARE-TIES draws the share instead.
    """

    def decompose(self, deltas: Tensor, parameters: Parameters) -> Frame:
        frame = frame_of(deltas, parameters["floor"])
        return selected(frame, _densities(parameters, len(deltas))) if parameters["join"] == "ties" else frame

    def join(self, deltas: Tensor, part: Frame, weights: Tensor, parameters: Parameters) -> Tensor:
        return part.basis @ merged(part, weights.tolist(), elects=parameters["join"] != "linear")

    def prepare(self, deltas: Tensor, parameters: Parameters, context: TensorContext) -> Decomposed | None:
        """Every matrix decomposed and, for DARE-TIES, the key of every expert's draws known."""
        prepared = super().prepare(deltas, parameters, context)
        if prepared is None or parameters["join"] != "dare_ties":
            return prepared
        densities, parts = _densities(parameters, len(deltas)), []
        for i, frame in enumerate(prepared.parts):
            name = f"{context.name}[{i}]" if prepared.stacked else context.name
            keys = [kernel.draw_key(context.seed, name, expert) for expert in context.experts]
            parts.append(drawn(frame, densities, keys))
        return prepared._replace(parts=tuple(parts))

    def combine(self, deltas: Tensor, prepared: Decomposed | None, weights: Tensor, parameters: Parameters) -> Tensor:
        """The update [*shape]; the mean of tensors that are no matrices is over the weights, too."""
        total = float(weights.double().sum())
        scale = len(weights) / total if abs(total) >= _NOBODY else len(weights)
        return super().combine(deltas, prepared, weights * scale, parameters)


def frame_of(deltas: Tensor, floor: float = FLOOR) -> Frame:
    """The common basis of dense deltas, directions up to `floor` of the largest left out.

    The decomposition is that of the smaller side: of Σ τ_t τ_tᵀ [out, out], unless all rows together are shorter.

    Args:
        deltas: [T, out, in], finite.
        floor: share of the largest singular value.
    """
    basis = _basis(deltas.double(), floor)
    return Frame(basis.float(), (basis.mT @ deltas.double()).float())


def frame_of_factors(factors: Sequence[tuple[Tensor, Tensor]], floor: float = FLOOR) -> Frame:
    """The same of deltas that are given as factors τ_t = up_t · down_t; none is formed.

    All ups lie in the column space of one QR factor Q [out, Σ r_t]; within it the deltas are small matrices.

    Args:
        factors: up_t [out, r_t] and down_t [r_t, in].
        floor: share of the largest singular value.
    """
    outer, upper = torch.linalg.qr(torch.cat([up.double() for up, _ in factors], 1))
    columns = upper.split([up.shape[1] for up, _ in factors], 1)
    pairs = zip(columns, factors, strict=True)
    inner = torch.stack([column @ down.double() for column, (_, down) in pairs])
    turned = _basis(inner, floor)
    basis = outer @ turned
    signs = _signs(basis)
    return Frame((basis * signs).float(), ((turned * signs).mT @ inner).float())


def selected(frame: Frame, densities: Sequence[float]) -> Frame:
    """The frame with the largest magnitudes of each expert's coordinates selected, a share for each expert."""
    zero = torch.zeros_like(frame.coordinates[0])
    pairs = zip(frame.coordinates, densities, strict=True)
    return frame._replace(cuts=tuple(kernel.cut(zero, each, kept_count(d, each.numel())) for each, d in pairs))


def drawn(frame: Frame, densities: Sequence[float], keys: Sequence[int]) -> Frame:
    """The frame with a share of each expert's coordinates drawn, by one key for each expert."""
    return frame._replace(chances=tuple(Chance(key, d, d) for key, d in zip(keys, densities, strict=True)))


def merged(frame: Frame, weights: Sequence[float], *, elects: bool) -> Tensor:
    """The merged coordinates, float32 [k, in]: basis · this is the update, before λ.

    Args:
        frame: with what is selected or drawn.
        weights: one an expert.
        elects: the mean of those that agree with the elected sign; else Σ w_t v_t / T.
    """
    zero, out = torch.zeros_like(frame.coordinates[0]), torch.empty_like(frame.coordinates[0])
    keeps, divisor = _keeps(frame, weights), float(1 if elects else len(weights))
    program = Program(keeps, "elected_mean" if elects else "sum", divisor=divisor)
    kernel.run(program, out, zero, list(frame.coordinates), torch.float32)
    return out


def _keeps(frame: Frame, weights: Sequence[float]) -> tuple[Keep, ...]:
    cuts: Sequence[Cut | None] = frame.cuts or [None] * len(weights)
    chances: Sequence[Chance | None] = frame.chances or [None] * len(weights)
    return tuple(Keep(w, above=cut, chance=c) for w, cut, c in zip(weights, cuts, chances, strict=True))


def _densities(parameters: Parameters, experts: int) -> list[float]:
    """One density an expert."""
    given: Any = parameters["density"]
    return list(given) if isinstance(given, tuple) else [given] * experts


def _basis(deltas: Tensor, floor: float) -> Tensor:
    """U [out, k] of float64 deltas [T, out, in] side by side."""
    experts, out, inputs = deltas.shape
    if out > experts * inputs:
        left = svd(torch.cat(deltas.unbind(), 1), floor).left
        return left * _signs(left)
    gram = torch.zeros((out, out), dtype=torch.float64, device=deltas.device)
    for delta in deltas:
        gram += delta @ delta.mT
    squares, vectors = torch.linalg.eigh(gram)
    # squares of singular values, ascending: a share of 1e-6 is 1e-12 here, and float64 knows four digits of it
    kept = squares > floor**2 * squares[-1:].sum().clamp_min(0.0)
    frame: Tensor = vectors[:, kept].flip(1)
    return frame * _signs(frame)


def _signs(columns: Tensor) -> Tensor:
    """±1 for each column, so that equal deltas in any order have one basis: a tied vote elects + in it."""
    if not columns.numel():
        return columns.new_ones(columns.shape[1])
    leading = columns.abs() >= _LEADING * columns.abs().amax(0)
    first = leading.to(torch.int8).argmax(0, keepdim=True)
    return torch.where(columns.gather(0, first)[0] < 0.0, -1.0, 1.0).to(columns.dtype)


knots: DeltaMethod = _Knots()
