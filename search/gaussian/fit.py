"""The most probable hyper-parameters of a Gaussian process, by L-BFGS with exact gradients.

Every hyper-parameter is positive and has a log-normal prior; what is maximised is the density of their logarithms, so
that without data each is at its prior's median.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.linalg import LinAlgError, cho_solve, cholesky
from scipy.optimize import minimize

from search.gaussian.kernel import Floats, Kernel, distances, matern, steepness

SMOOTH = (1.0, 1.0)  # median and spread (of the logarithm), in units of the values' variance
SLOPE = (0.5, 1.0)
NUGGET = (0.001, 1.5)
DOCUMENTS = (0.05, 1.0)
SCALE_SPREAD = 1.0
LEAST_NUGGET = 1e-5
ITERATIONS = 40


@dataclass(frozen=True)
class Hyper:
    """Hyper-parameters; the noise of an observation is nugget + documents · fewer.

    Attributes:
        nugget: variance of an observation on all documents: what is not smooth.
        documents: what missing documents add; see `search.gaussian.observed.Known.fewer`.
    """

    kernel: Kernel
    nugget: float
    documents: float

    def noise(self, fewer: Floats) -> Floats:
        """Variances of observations: [n] -> [n]."""
        return LEAST_NUGGET + self.nugget + self.documents * fewer


@dataclass(frozen=True)
class Prior:
    """The medians of the length scales, [d]."""

    scales: Floats

    @property
    def shares(self) -> Floats:
        """What each coordinate has of the line's variance; over a unit cube the line then varies by its variance."""
        weight = self.scales**-2.0
        return np.asarray(12.0 * weight / weight.sum())

    @property
    def centre(self) -> Floats:
        """[d + 4] logarithms of the medians: scales, smooth, slope, nugget, documents."""
        rest = [SMOOTH[0], SLOPE[0], NUGGET[0], DOCUMENTS[0]]
        return np.asarray(np.log(np.concatenate([self.scales, rest])))

    @property
    def spread(self) -> Floats:
        """[d + 4] standard deviations of the logarithms."""
        rest = [SMOOTH[1], SLOPE[1], NUGGET[1], DOCUMENTS[1]]
        return np.concatenate([np.full(len(self.scales), SCALE_SPREAD), rest])

    def hyper(self, logs: Floats) -> Hyper:
        """Hyper-parameters from their logarithms, in the order of `centre`."""
        smooth, slope, nugget, documents = (float(v) for v in np.exp(logs[-4:]))
        return Hyper(Kernel(np.exp(logs[:-4]), smooth, slope, self.shares), nugget, documents)


def fit(prior: Prior, points: Floats, values: Floats, fewer: Floats) -> Hyper:
    """The most probable hyper-parameters, the same for the same arguments.

    Args:
        points: [n, d]. values: [n], about 0, of variance 1. fewer: [n], as of `Hyper.noise`.
    """
    loss = loss_of(prior, points, values, fewer)
    reach = 4.0 * prior.spread
    bounds = np.stack([prior.centre - reach, prior.centre + reach], axis=1)
    found = minimize(
        loss, prior.centre, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": ITERATIONS, "ftol": 1e-5}
    )
    return prior.hyper(np.asarray(found.x))


def loss_of(prior: Prior, points: Floats, values: Floats, fewer: Floats) -> Callable[[Floats], tuple[float, Floats]]:
    """Minus the logarithm of the posterior density of log hyper-parameters (up to a constant), and its gradient."""
    centre, spread, shares = prior.centre, prior.spread, prior.shares
    line = (points * shares) @ points.T

    def loss(logs: Floats) -> tuple[float, Floats]:
        hyper = prior.hyper(logs)
        scales, smooth = hyper.kernel.scales, hyper.kernel.smooth
        distance = distances(points / scales, points / scales)
        rest = smooth * matern(distance)
        covariance = rest + hyper.kernel.slope * line
        covariance[np.diag_indices_from(covariance)] += hyper.noise(fewer)
        away = (logs - centre) / spread
        try:
            factor = cholesky(covariance, lower=True, check_finite=False)
        except LinAlgError:
            return 1e10, np.zeros_like(logs)
        inverse = cho_solve((factor, True), np.eye(len(values)), check_finite=False)
        solved = inverse @ values
        density = 0.5 * values @ solved + np.log(np.diag(factor)).sum() + 0.5 * away @ away
        # ∂/∂θ = ½ tr((K⁻¹ − ααᵀ) ∂K/∂θ)
        inner = inverse - np.outer(solved, solved)
        diagonal = np.diag(inner)
        tail = [
            (inner * rest).sum(),
            hyper.kernel.slope * (inner * line).sum(),
            hyper.nugget * diagonal.sum(),
            hyper.documents * (diagonal @ fewer),
        ]
        gradient = np.concatenate([_by_scales(inner * (smooth * steepness(distance)), points / scales), tail])
        return float(density), 0.5 * gradient + away / spread

    return loss


def _by_scales(weights: Floats, scaled: Floats) -> Floats:
    """[n, n], [n, d] -> [d]: Σ_ab weights[a, b] (x_ai − x_bi)², of symmetric weights."""
    return np.asarray(2.0 * (weights.sum(axis=1) @ scaled**2 - (scaled * (weights @ scaled)).sum(axis=0)))
