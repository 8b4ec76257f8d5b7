"""What a point may gain, and whether it meets the constraints: terms of the logarithm that a proposal maximises.

Each term gives its value and its gradient at points [m, columns], so that their sum can be climbed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

from search.gaussian.kernel import Floats
from search.gaussian.process import Belief, Process
from search.hypervolume import undominated

LEAST = 1e-300
ROOT2, LOG_ROOT_2PI = 2.0**0.5, 0.5 * float(np.log(2.0 * np.pi))


class Term(Protocol):
    """A part of the logarithm of how promising a point is."""

    def log(self, points: Floats) -> Floats:
        """[m, columns] -> [m]."""
        ...

    def climbed(self, points: Floats) -> tuple[Floats, Floats]:
        """The same and its gradient: [m, columns] -> [m], [m, columns]."""
        ...


@dataclass(frozen=True)
class Improvement:
    """The logarithm of the expected improvement on `best` of a weighted sum of outputs.

    In logarithms it has a gradient also where it is far below what a float holds (Ament et al., "Unexpected
    Improvements to Expected Improvement", arXiv:2310.20708, eq. 9).

    Attributes:
        processes: of one output each.
    """

    processes: Sequence[Process]
    weights: Sequence[float]
    best: float

    def log(self, points: Floats) -> Floats:
        """As of `Term`."""
        mean, deviation = self._sum([process.at(points) for process in self.processes])
        return np.asarray(log_gain((mean - self.best) / deviation) + np.log(deviation))

    def climbed(self, points: Floats) -> tuple[Floats, Floats]:
        """As of `Term`."""
        found = [process.climbed(points) for process in self.processes]
        mean, deviation = self._sum([belief for belief, _ in found])
        z = (mean - self.best) / deviation
        log = log_gain(z) + np.log(deviation)
        by_mean, by_deviation = np.exp(log_ndtr(z) - log), np.exp(-0.5 * z**2 - LOG_ROOT_2PI - log)
        gradient = np.zeros_like(points)
        for weight, (belief, slopes) in zip(self.weights, found, strict=True):
            share = weight**2 * belief.deviation / deviation
            gradient += slopes((weight * by_mean)[:, None], by_deviation * share)
        return log, gradient

    def _sum(self, beliefs: Sequence[Belief]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the weighted sum: [m] each."""
        weights = np.array(self.weights)
        variance = weights**2 @ np.stack([belief.deviation for belief in beliefs]) ** 2
        return weights @ np.stack([belief.mean[:, 0] for belief in beliefs]), np.sqrt(variance)


@dataclass(frozen=True)
class Met:
    """The logarithm of the probability that every output of a process is at most its threshold [outputs]."""

    process: Process
    thresholds: Floats

    def log(self, points: Floats) -> Floats:
        """As of `Term`."""
        belief = self.process.at(points)
        return np.asarray(log_ndtr((self.thresholds - belief.mean) / belief.deviation[:, None]).sum(axis=1))

    def climbed(self, points: Floats) -> tuple[Floats, Floats]:
        """As of `Term`."""
        belief, slopes = self.process.climbed(points)
        u = (self.thresholds - belief.mean) / belief.deviation[:, None]
        each = log_ndtr(u)
        steep = np.exp(-0.5 * u**2 - LOG_ROOT_2PI - each) / belief.deviation[:, None]  # [m, outputs]
        return each.sum(axis=1), slopes(-steep, -(steep * u).sum(axis=1))


class HypervolumeImprovement:
    """The logarithm of the expected gain in hypervolume, in closed form.

    The space above the front falls into boxes; in each the gain is a product over the objectives, which are
    independent, so its expectation is one of expected improvements (Yang et al., "Efficient Computation of Expected
    Hypervolume Improvement Using Box Decomposition Algorithms", 2019).

    Args:
        processes: one an objective.
        front: [k, objectives] what is to be improved on. reference: [objectives].
    """

    def __init__(self, processes: Sequence[Process], front: Floats, reference: Floats) -> None:
        self._processes = processes
        corners = undominated(front, reference)
        self._levels: list[Floats] = []
        self._sides: list[tuple[np.ndarray, np.ndarray]] = []  # indices of lower and upper corners among the levels
        for j in range(len(processes)):
            levels = np.unique(np.concatenate([corners[0][:, j], corners[1][:, j]]))
            self._levels.append(levels)
            self._sides.append((np.searchsorted(levels, corners[0][:, j]), np.searchsorted(levels, corners[1][:, j])))

    def log(self, points: Floats) -> Floats:
        """As of `Term`."""
        lengths = [self._lengths(j, process.at(points))[0] for j, process in enumerate(self._processes)]
        return np.asarray(np.log(np.maximum(np.prod(lengths, axis=0).sum(axis=1), LEAST)))

    def climbed(self, points: Floats) -> tuple[Floats, Floats]:
        """As of `Term`."""
        found = [process.climbed(points) for process in self._processes]
        sides = [self._lengths(j, belief) for j, (belief, _) in enumerate(found)]
        total = np.maximum(np.prod([lengths for lengths, _, _ in sides], axis=0).sum(axis=1), LEAST)
        gradient = np.zeros_like(points)
        for j, (_, slopes) in enumerate(found):
            others = np.prod([lengths for k, (lengths, _, _) in enumerate(sides) if k != j], axis=0)
            by_mean, by_deviation = ((others * by).sum(axis=1) / total for by in sides[j][1:])
            gradient += slopes(by_mean[:, None], by_deviation)
        return np.log(total), gradient

    def _lengths(self, j: int, belief: Belief) -> tuple[Floats, Floats, Floats]:
        """Of each box the expected length gained along objective j, and its derivatives by mean and deviation: three
        of [m, boxes].
        """
        mean, deviation = belief.mean[:, 0], belief.deviation
        levels, (low, high) = self._levels[j], self._sides[j]
        finite = np.isfinite(levels)
        z = np.where(finite, (mean[:, None] - np.where(finite, levels, 0.0)) / deviation[:, None], -np.inf)
        density = np.exp(-0.5 * z**2 - LOG_ROOT_2PI)
        share = ndtr(z)
        gain = np.where(finite, deviation[:, None] * (density + np.where(finite, z, 0.0) * share), 0.0)
        each = (np.maximum(gain[:, low] - gain[:, high], 0.0), share[:, low] - share[:, high])
        return (*each, density[:, low] - density[:, high])


def log_gain(z: Floats) -> Floats:
    """log(φ(z) + z Φ(z)), exact to a float's precision for any z (the paper's eq. 9 and appendix A.1)."""
    near = z > -1.0
    safe = np.where(near, z, 0.0)
    density = np.exp(-0.5 * safe**2 - LOG_ROOT_2PI)
    far = np.minimum(z, -1.0)
    # φ(z) + z Φ(z) = φ(z) (1 − |z| √(π/2) erfcx(|z|/√2)); beyond 1e6 the bracket is 1/z²
    ratio = -far * np.sqrt(np.pi / 2.0) * erfcx(-far / ROOT2)
    bracket = np.where(far > -1e3, np.log1p(-np.minimum(ratio, 1.0 - 1e-15)), -2.0 * np.log(-far))
    return np.where(near, np.log(density + safe * ndtr(safe)), -0.5 * far**2 - LOG_ROOT_2PI + bracket)
