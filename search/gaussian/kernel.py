"""The covariance: a straight line through the coefficients plus a smooth rest.

k(x, x') = smooth · m(|(x − x') / scales|) + slope · Σ_i shares_i x_i x'_i, with m of Matérn's functions that of 5/2
(Rasmussen and Williams, "Gaussian Processes for Machine Learning", eq. 4.17). The second term is a ridge regression on
the coefficients as prior mean, its weights integrated out (the same book, section 2.7): what it says is as sure as the
observations make it.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

ROOT5 = 5.0**0.5


@dataclass(frozen=True)
class Kernel:
    """The covariance of values at two points.

    Attributes:
        scales: [d] length scales, in units of the coordinates.
        smooth: variance of the smooth rest.
        slope: variance of the straight line; of a coordinate's slope `slope * shares[i]`.
        shares: [d].
    """

    scales: Floats
    smooth: float
    slope: float
    shares: Floats

    def between(self, first: Floats, second: Floats) -> Floats:
        """[n, d], [m, d] -> [n, m]."""
        return self.covariance(distances(first / self.scales, second / self.scales), first, second)

    def covariance(self, distance: Floats, first: Floats, second: Floats) -> Floats:
        """The same where the distances [n, m] in length scales are known."""
        return np.asarray(self.smooth * matern(distance) + (first * (self.slope * self.shares)) @ second.T)

    def at(self, points: Floats) -> Floats:
        """Variances: [n, d] -> [n]."""
        return self.smooth + self.slope * (points * points @ self.shares)

    def pull(self, distance: Floats, points: Floats, others: Floats, weights: Floats) -> Floats:
        """How a weighted sum of covariances changes with the points: [m, d], Σ_j weights[j, m] ∂k(x_m, o_j) / ∂x_m.

        Args:
            distance: [n, m] in length scales. points: [m, d]. others: [n, d]. weights: [n, m].
        """
        steep = weights * (self.smooth * steepness(distance))
        toward = steep.T @ others - points * steep.sum(axis=0)[:, None]
        return np.asarray(toward / self.scales**2 + self.slope * self.shares * (weights.T @ others))


def distances(first: Floats, second: Floats) -> Floats:
    """Euclidean distances: [n, d], [m, d] -> [n, m]."""
    squares = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)[None, :] - 2.0 * first @ second.T
    return np.asarray(np.sqrt(np.maximum(squares, 0.0)))


def matern(distance: Floats) -> Floats:
    """(1 + √5 r + 5/3 r²) exp(−√5 r)."""
    far = ROOT5 * distance
    return np.asarray((1.0 + far + far**2 / 3.0) * np.exp(-far))


def steepness(distance: Floats) -> Floats:
    """5/3 (1 + √5 r) exp(−√5 r): minus the derivative of `matern` by r²/2; finite at 0."""
    far = ROOT5 * distance
    return np.asarray(5.0 / 3.0 * (1.0 + far) * np.exp(-far))
