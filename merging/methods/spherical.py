"""Interpolation along the sphere, around zero or around the base.

A vector is an expert (origin zero) or its delta (origin base): of the whole tensor, of a row or of a column. All of
these methods are linear combinations of the vectors, and all angles follow from inner products, so that N models cost
the same pass over memory as a plain average. A vector of weight 0 takes no part.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from merging.methods import gram
from merging.methods.contract import LinearMethod, Over, Parameters, TensorContext

_OPPOSITE = -0.9995  # below this cosine an arc has no way of its own (sin Ω < 0.03): rounding would choose it
_NEAR = 1e-12  # sin² of an angle at whose limit, 0, quotients are more exact than themselves
_FLAT = 0.05  # with less curvature, between vectors at 90° or more, a step follows the gradient
_FAR = 1e3  # coordinates of a unit vector beyond this are rounding: its parts cancel, there is none


class _Spherical(ABC):
    """What the methods share: weights become shares, coefficients of vectors become coefficients of models."""

    def coefficients(
        self, weights: Sequence[float], parameters: Parameters, context: TensorContext
    ) -> Sequence[float] | Tensor:
        over: Over = parameters["over"]
        taking = [index for index, weight in enumerate(weights) if weight != 0]
        if len(taking) == 1:  # comes back to the bit
            return [0.0, *(float(index in taking) for index in range(len(weights)))]
        around_base = parameters["origin"] == "base"
        products = gram.products(context, over)
        inner = gram.of_deltas(products) if around_base else gram.of_models(products)
        shares = torch.tensor([weights[index] for index in taking], dtype=torch.float64)
        found = torch.zeros(len(inner), len(weights), dtype=torch.float64)
        found[:, taking] = self.combine(inner[:, taking][:, :, taking], shares / shares.sum(), parameters)
        return gram.spread(gram.around_base(found) if around_base else gram.around_zero(found), context, over)

    @abstractmethod
    def combine(self, inner: Tensor, shares: Tensor, parameters: Parameters) -> Tensor:
        """Coefficients of the vectors, [slices, T].

        Args:
            inner: ⟨x_i, x_j⟩, [slices, T, T].
            shares: the weights, above 0 and with sum 1, [T].
        """


class _Slerp(_Spherical):
    """[sin((1−t)Ω) x_1 + sin(tΩ) x_2] / sin Ω, Ω the angle between x_1 and x_2 (doi:10.1145/325165.325242).

    The angle is that of the normalised vectors, the combined ones are not normalised; t = w_2 / (w_1 + w_2).
    The line (1−t) x_1 + t x_2 replaces the arc where that is one (a cosine above `colinear`), where it is undefined
    (opposite vectors, whose line passes through the origin) and with a vector of length 0.
    """

    def __init__(self, colinear: float) -> None:
        self.colinear = colinear

    def combine(self, inner: Tensor, shares: Tensor, parameters: Parameters) -> Tensor:
        size, between = gram.angles(inner)
        cosine, null = between[:, :1, 1], (size == 0).any(1, keepdim=True)
        straight = null | (cosine > self.colinear) | (cosine < _OPPOSITE)
        angle = torch.acos(torch.where(straight, 0.0, cosine))
        return torch.where(straight, shares, torch.sin(shares * angle) / torch.sin(angle))


class _DirectedMean(_Spherical):
    """A mean direction of the vectors times their mean length Σ w_t ‖x_t‖.

    Vectors of length 0 have no direction and count in the length alone. Where the others have none in common, the
    weighted mean of the vectors takes its place.
    """

    def combine(self, inner: Tensor, shares: Tensor, parameters: Parameters) -> Tensor:
        size, cosine = gram.angles(inner)
        null = size == 0
        pulls = torch.where(null, 0.0, shares)
        pulls = pulls / torch.where(null.all(1, keepdim=True), 1.0, pulls.sum(1, keepdim=True))
        length = gram.norm(pulls, cosine)
        direction, lost = self.direct(pulls / length, pulls, cosine, parameters)
        lengthened = (shares * size).sum(1, keepdim=True) * direction / torch.where(null, 1.0, size)
        lost = lost | (length == 0) | (direction.abs().amax(1, keepdim=True) > _FAR)
        return torch.where(lost, shares, lengthened)

    def direct(self, start: Tensor, pulls: Tensor, cosine: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """The mean direction in coordinates of the unit vectors, [slices, T], and where there is none, [slices, 1].

        Args:
            start: the normalised mean of the unit vectors, [slices, T].
            pulls: the weights, 0 for vectors without direction, with sum 1, [slices, T].
            cosine: between the vectors, [slices, T, T].
        """
        return start, torch.zeros_like(start[:, :1], dtype=torch.bool)


class _Karcher(_DirectedMean):
    """Direction: the weighted Fréchet mean on the sphere, argmin_m Σ w_t ∠(m, x_t)² (doi:10.1145/502122.502124).

    Newton's method from the normalised mean on, three or four steps whatever the spread: at m, the unit vectors lie in
    the plane that touches the sphere as t_i = u_i − cos θ_i m. The gradient there is −Σ w_i θ_i/sin θ_i t_i, and the
    curvature w_i θ_i cot θ_i across t_i and w_i along it, so that the step v = Σ y_i t_i solves

        (Σ_k w_k θ_k cot θ_k) y_i + w_i (1 − θ_i cot θ_i)/sin² θ_i Σ_j ⟨t_i, t_j⟩ y_j = w_i θ_i/sin θ_i

    and is taken along the sphere, until it is shorter than `tol`. Between vectors so far apart that the first sum is
    small, the step is the negative gradient, y_i = w_i θ_i/sin θ_i. There is no mean with a vector opposite to it.
    """

    def direct(self, start: Tensor, pulls: Tensor, cosine: Tensor, parameters: Parameters) -> tuple[Tensor, Tensor]:
        mean, lost = super().direct(start, pulls, cosine, parameters)
        for _ in range(parameters["iterations"]):
            dots = torch.einsum("sij,sj->si", cosine, mean).clamp(-1.0, 1.0)
            lost = lost | (dots < _OPPOSITE).any(1, keepdim=True)
            shares = _newton(dots, pulls, cosine)
            step = shares - (shares * dots).sum(1, keepdim=True) * mean
            length = gram.norm(step, cosine)
            moving = (length >= parameters["tol"]) & ~lost
            if not moving.any():
                break
            moved = torch.cos(length) * mean + torch.sinc(length / math.pi) * step
            mean = torch.where(moving, moved / gram.norm(moved, cosine), mean)
        return mean, lost


def _newton(dots: Tensor, pulls: Tensor, cosine: Tensor) -> Tensor:
    """The y of a Newton step, [slices, T], from cos θ [slices, T], w [slices, T] and cosines [slices, T, T]."""
    stretch = 1.0 / torch.sinc(torch.acos(dots) / math.pi)  # θ / sin θ
    sine = 1.0 - dots.square()
    bend = torch.where(sine < _NEAR, 1.0 / 3.0, (1.0 - stretch * dots) / sine)  # its limit at θ = 0
    across = (pulls * stretch * dots).sum(1)[:, None, None]
    plane = cosine - dots[:, :, None] * dots[:, None, :]
    one = torch.eye(dots.shape[1], dtype=dots.dtype)
    matrix = torch.where(across < _FLAT, one, across * one + (pulls * bend)[:, :, None] * plane)
    found: Tensor = torch.linalg.solve_ex(matrix, pulls * stretch).result
    return found


slerp: LinearMethod = _Slerp(colinear=0.9995)
nuslerp: LinearMethod = _Slerp(colinear=1.0 - 1e-12)  # an angle of a millionth: arc and line agree to 12 digits
nlerp: LinearMethod = _DirectedMean()
karcher: LinearMethod = _Karcher()
