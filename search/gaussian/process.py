"""A Gaussian process given observations of unequal noise (Rasmussen and Williams, algorithm 2.1)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky, solve_triangular

from search.gaussian.kernel import Floats, Kernel, distances

LEAST_VARIANCE = 1e-10


Slopes = Callable[[Floats, Floats], Floats]


@dataclass(frozen=True)
class Belief:
    """What a process says of values at m points, without noise.

    Attributes:
        mean: [m, outputs]. deviation: [m] the standard deviation, of every output.
    """

    mean: Floats
    deviation: Floats


class Process:
    """What the values at points may be, given others. Several outputs share the points, the noise and the kernel.

    Args:
        points: [n, d].
        values: [n, outputs], about 0.
        noise: [n] variances of the observations.
    """

    def __init__(self, kernel: Kernel, points: Floats, values: Floats, noise: Floats) -> None:
        self.kernel, self._points, self._scaled = kernel, points, points / kernel.scales
        covariance = kernel.between(points, points)
        covariance[np.diag_indices_from(covariance)] = kernel.at(points) + noise
        self._factor = cholesky(covariance, lower=True, check_finite=False)
        self._weights = cho_solve((self._factor, True), values, check_finite=False)  # [n, outputs]

    def mean(self, points: Floats) -> Floats:
        """[m, d] -> [m, outputs]."""
        return np.asarray(self.kernel.between(points, self._points) @ self._weights)

    def at(self, points: Floats) -> Belief:
        """What is believed at points [m, d]."""
        across = self.kernel.between(self._points, points)  # [n, m]
        known = solve_triangular(self._factor, across, lower=True, check_finite=False)
        variance = self.kernel.at(points) - (known**2).sum(axis=0)
        return Belief(across.T @ self._weights, np.sqrt(np.maximum(variance, LEAST_VARIANCE)))

    def climbed(self, points: Floats) -> tuple[Belief, Slopes]:
        """The same, and a function from the derivatives of something by mean [m, outputs] and by deviation [m] to its
        gradient by the points [m, d].
        """
        kernel, distance = self.kernel, distances(self._scaled, points / self.kernel.scales)
        across = kernel.covariance(distance, self._points, points)
        solved = cho_solve((self._factor, True), across, check_finite=False)  # [n, m]
        variance = kernel.at(points) - (across * solved).sum(axis=0)
        belief = Belief(across.T @ self._weights, np.sqrt(np.maximum(variance, LEAST_VARIANCE)))

        def slopes(by_mean: Floats, by_deviation: Floats) -> Floats:
            # σ² = k(x, x) − kᵀ K⁻¹ k, so ∂σ = (∂k(x, x)/2 − (K⁻¹ k)ᵀ ∂k) / σ
            share = np.where(variance > LEAST_VARIANCE, by_deviation, 0.0) / belief.deviation
            pulled = kernel.pull(distance, points, self._points, self._weights @ by_mean.T - solved * share)
            return np.asarray(pulled + share[:, None] * (kernel.slope * kernel.shares * points))

        return belief, slopes
