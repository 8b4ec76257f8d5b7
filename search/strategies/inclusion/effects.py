"""What taking part is worth: a Bayesian linear model of the bits and the numbers, drawn from rather than averaged.

One draw of all effects decides one proposal (Thompson sampling): what is uncertain is tried, what is known to harm is
not. Draws are exact and cost no more than the trials squared times the effects (Bhattacharya et al., "Fast sampling
with Gaussian scale-mixture priors in high-dimensional regression", 2016, section 2).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, cholesky

from search.gaussian.kernel import Floats
from search.gaussian.scaling import warped
from search.strategies.inclusion.masked import Mask

NOISES = (0.02, 0.1, 0.5)  # variances of an observation, of which the likeliest is taken
STOPPED = 0.5  # more, of a trial that was stopped early
STEEP = 3.0  # how far numbers are taken to move the value, in comparison with all bits together


@dataclass(frozen=True)
class Seen:
    """A trial with a value."""

    mask: Mask
    value: float
    pruned: bool


class Effects:
    """One draw of the effects, given what was seen.

    Args:
        centre: [handles] about which the numbers' effects are curved.
    """

    def __init__(self, seen: Sequence[Seen], bits: int, centre: Floats, random: np.random.Generator) -> None:
        self._bits, self._centre = bits, centre
        size = 1 + bits + 2 * len(centre)
        drawn = random.standard_normal(size)
        if seen:
            features = np.stack([self._features(each.mask) for each in seen])
            values = np.array([each.value for each in seen])
            extra = np.array([STOPPED * each.pruned for each in seen])
            drawn = _posterior(features, warped(values)(values), extra, drawn, random)
        self._effects = drawn

    @property
    def liking(self) -> Floats:
        """[bits] what taking part is worth there."""
        return self._effects[1 : 1 + self._bits]

    def worth(self, mask: Mask) -> float:
        """What a candidate is worth by this draw."""
        return float(self._features(mask) @ self._effects)

    def _features(self, mask: Mask) -> Floats:
        moved = (mask.values - self._centre) * (STEEP / len(self._centre) ** 0.5)
        return np.concatenate([[1.0], (2.0 * mask.bits - 1.0) / self._bits**0.5, moved, moved**2])


def _posterior(features: Floats, values: Floats, extra: Floats, drawn: Floats, random: np.random.Generator) -> Floats:
    """A draw from the posterior of unit normal effects, from one of the prior.

    Args:
        features: [n, effects]. values: [n]. extra: [n] variances beside the noise. drawn: [effects].
    """
    product = features @ features.T
    fits = [_factored(product, values, extra + noise) for noise in NOISES]
    best = int(np.argmax([likelihood for likelihood, _ in fits]))
    factor = fits[best][1]
    luck = random.standard_normal(len(values)) * np.sqrt(extra + NOISES[best])
    solved = cho_solve((factor, True), values - features @ drawn - luck, check_finite=False)
    return np.asarray(drawn + features.T @ solved)


def _factored(product: Floats, values: Floats, noise: Floats) -> tuple[float, Floats]:
    """The logarithm of the values' likelihood up to a constant, and the factor of their covariance."""
    factor = cholesky(product + np.diag(noise), lower=True, check_finite=False)
    solved = cho_solve((factor, True), values, check_finite=False)
    return float(-0.5 * values @ solved - np.log(np.diag(factor)).sum()), factor
