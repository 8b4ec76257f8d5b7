"""Decompositions of matrices that know what is noise: singular vectors, polar factors, least squares on a Gram matrix.

All float64, whatever comes in. In float32 the singular values that should be 0 come out near 6e-7 of the largest, too
close to the floor below which a direction is null; float64 costs twice the time, and what is left of the differences
between processors and numbers of threads disappears when results are rounded to float32.
"""

from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 1e-6
"""Share of the largest singular value below which a direction is rounding noise rather than a direction."""

_GRAM_FLOOR = FLOOR**2  # a Gram matrix has the squares


class Factors(NamedTuple):
    """A matrix [m, n] as left · diag(values) · right, null directions left out.

    Attributes:
        left: float64 [m, k], orthonormal columns.
        values: float64 [k], positive, descending.
        right: float64 [k, n], orthonormal rows.
    """

    left: Tensor
    values: Tensor
    right: Tensor


def svd(matrix: Tensor, floor: float = FLOOR, *, rank: int | None = None, scale: Tensor | None = None) -> Factors:
    """The singular value decomposition without its null directions.

    The singular vectors of null directions are arbitrary, but of unit length: any method that forgets the singular
    value (whitening, flattening) would give noise the rank of a direction.

    Args:
        matrix: [m, n], finite.
        floor: directions up to this share of `scale` are null.
        rank: how many directions to keep at most, largest first.
        scale: what the floor is a share of; by default the largest singular value.

    Returns:
        k ≤ min(m, n, rank) directions; none for a matrix of zeros.
    """
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    largest = values[:1].sum() if scale is None else scale.double()
    count = int((values > floor * largest).count_nonzero())
    kept = slice(count if rank is None else min(count, rank))
    # copies: a view of a part would keep the whole of it alive
    return Factors(left[:, kept].clone(), values[kept].clone(), right[kept].clone())


def polar(frame: Tensor, floor: float = FLOOR) -> Tensor:
    """The isometry nearest to a matrix: U V of its decomposition U Σ V, on its row space alone.

    Of linearly dependent columns each gets its share of the directions they span, instead of an arbitrary one.

    Args:
        frame: [m, n].
        floor: directions up to this share of the largest are null.

    Returns:
        float64 [m, n], whose singular values are 1 and 0.
    """
    left, _, right = svd(frame, floor)
    return left @ right


class GramFactors(NamedTuple):
    """The decomposition of one least-squares problem, from which `gram_solve` has the answer to any ridge.

    Attributes:
        coordinates: [m, k], the right-hand side in the basis.
        spectrum: [k], positive eigenvalues of the Gram matrix.
        basis: [n, k], orthonormal columns.
        level: the mean of the Gram matrix' diagonal, a scalar.
    """

    coordinates: Tensor
    spectrum: Tensor
    basis: Tensor
    level: Tensor


def gram_factors(gram: Tensor, moment: Tensor) -> GramFactors:
    """Decomposes the problem X · gram = moment.

    Args:
        gram: [n, n], symmetric, positive semi-definite: Σ_t AᵀA over what the answer is fitted to.
        moment: [m, n], its rows in the row space of `gram`, as Σ_t B Aᵀ A is.

    Returns:
        float64, null directions left out.
    """
    gram = gram.double()
    values, vectors = torch.linalg.eigh(gram)
    kept = values > _GRAM_FLOOR * values[-1:].sum()
    basis = vectors[:, kept]
    return GramFactors(moment.double() @ basis, values[kept], basis, gram.diagonal().mean())


def gram_solve(factors: GramFactors, ridge: float) -> Tensor:
    """X with X · (gram + ridge · mean(diag gram) · I) = moment, [m, n]; without a ridge the smallest of them.

    With `moment` = Σ_t (T_t − anchor) G_t, `anchor` + X minimises Σ_t tr (M − T_t) G_t (M − T_t)ᵀ plus a ridge that
    pulls M toward the anchor: RegMean (arXiv:2212.09849) with G_t the Gram matrix of inputs, WUDI with that of deltas.
    """
    damped = factors.spectrum + ridge * factors.level
    return (factors.coordinates / damped) @ factors.basis.mT
