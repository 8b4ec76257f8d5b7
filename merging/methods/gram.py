"""Geometry from inner products: lengths, angles, and what becomes of them in a tensor's coefficients.

Of vectors x_t with inner products G, the combination Σ c_t x_t has the squared length cᵀ G c: angles, norms and means
on a sphere need no vector. All tensors here are float64 with a leading axis of slices: one slice is a whole tensor, or
a row or a column where these are merged each by itself. NaN in a product stays NaN in all that depends on it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from merging.methods.contract import Over, TensorContext

# A model's squared length comes out of a sum that may cancel; below this share of its parts it is rounding noise.
_NOISE = 1e-12


def products(context: TensorContext, over: Over) -> Tensor:
    """Inner products of (θ_0, τ_1 … τ_T), [slices, T+1, T+1]; a tensor of fewer than two dimensions is one slice."""
    sliced = over in ("row", "column") and len(context.shape) > 1 and 0 not in context.shape
    gram = context.statistics.gram(over if sliced or over in ("layer", "model") else "tensor")
    return gram if sliced else gram[None]


def of_deltas(gram: Tensor) -> Tensor:
    """⟨τ_i, τ_j⟩, [slices, T, T], from the products of (θ_0, τ_1 … τ_T)."""
    return gram[:, 1:, 1:]


def of_models(gram: Tensor) -> Tensor:
    """⟨X_i, X_j⟩, [slices, T, T], from the products of (θ_0, τ_1 … τ_T); exactly 0 for a model that is 0."""
    base, cross = gram[:, :1, :1], gram[:, 0, 1:]
    inner = base + cross[:, :, None] + cross[:, None, :] + of_deltas(gram)
    own = inner.diagonal(dim1=1, dim2=2)
    null = own <= _NOISE * (base[:, 0] + of_deltas(gram).diagonal(dim1=1, dim2=2))
    return torch.where(null[:, :, None] | null[:, None, :], 0.0, inner)


def angles(inner: Tensor, floor: float = 0.0) -> tuple[Tensor, Tensor]:
    """‖x_t‖, [slices, T], and ⟨x_i, x_j⟩ / (‖x_i‖ ‖x_j‖), [slices, T, T]; 0 with a vector that is 0.

    Args:
        inner: ⟨x_i, x_j⟩, [slices, T, T].
        floor: the least that a product of lengths counts as.
    """
    size = inner.diagonal(dim1=1, dim2=2).sqrt()
    scale = (size[:, :, None] * size[:, None, :]).clamp_min(floor)
    return size, torch.where(scale == 0, 0.0, inner / scale)


def mean_cosine(cosine: Tensor) -> Tensor:
    """The mean over pairs i < j, [slices], of cosines [slices, T, T], T ≥ 2."""
    first, second = torch.triu_indices(cosine.shape[1], cosine.shape[1], offset=1)
    return cosine[:, first, second].mean(1)


def norm(coordinates: Tensor, inner: Tensor) -> Tensor:
    """‖Σ_t c_t x_t‖, [slices, 1], of coordinates [slices, T] and products [slices, T, T]."""
    squared = torch.einsum("si,sij,sj->s", coordinates, inner, coordinates)
    return squared.clamp_min(0.0).sqrt()[:, None]  # where all cancels, rounding may be negative


def around_base(of_deltas: Tensor) -> Tensor:
    """Coefficients of (θ_0, X_1 … X_T), [slices, T+1], from those of (τ_1 … τ_T), [slices, T]: they sum to 1."""
    return torch.cat([1.0 - of_deltas.sum(1, keepdim=True), of_deltas], dim=1)


def around_zero(of_models: Tensor) -> Tensor:
    """Coefficients of (θ_0, X_1 … X_T), [slices, T+1], from those of (X_1 … X_T), [slices, T]."""
    return torch.cat([torch.zeros_like(of_models[:, :1]), of_models], dim=1)


def spread(coefficients: Tensor, context: TensorContext, over: Over) -> Sequence[float] | Tensor:
    """Coefficients [slices, T+1] as a linear method gives them: numbers, or one a row or column of the tensor.

    Returns:
        T+1 numbers for one slice; else [T+1, rows, 1 …] or [T+1, 1 …, columns].
    """
    if len(coefficients) == 1:
        numbers: list[float] = coefficients[0].tolist()
        return numbers
    ones = [1] * (len(context.shape) - 1)
    axes = [*ones, -1] if over == "column" else [-1, *ones]
    return coefficients.T.reshape(coefficients.shape[1], *axes)
