"""What estimates miss, learned from the few that were truly scored: ridge regression of the residual."""

from dataclasses import dataclass

import numpy as np

from evaluation.statistics import Floats

_PENALTIES = np.logspace(-2, 4, 13)
LEAST = 3  # scored ones from which a slope is learned; with fewer, only by how much all estimates are off


@dataclass(frozen=True)
class Correction:
    """A residual as a linear function of features.

    Attributes:
        error: root mean square of what it would have missed of each one, learned from the others alone; NaN of fewer
            than `LEAST`.
    """

    offset: float
    slopes: Floats
    centre: Floats
    scale: Floats
    error: float

    def __call__(self, features: Floats) -> Floats:
        """The residuals of features [n, d]: [n]."""
        found: Floats = self.offset + (features - self.centre) / self.scale @ self.slopes
        return found


def fitted(features: Floats, residuals: Floats, scale: Floats) -> Correction:
    """The correction that fits scored ones [n, d], its penalty the one that leaves out best.

    Args:
        residuals: what was scored minus what was estimated, [n].
        scale: what counts as one step in each feature, [d]; 0: it is left alone.
    """
    scale = np.where(scale > 0, scale, np.inf)
    if len(residuals) < LEAST:
        offset = float(residuals.mean()) if len(residuals) else 0.0
        return Correction(offset, np.zeros(features.shape[1]), np.zeros(features.shape[1]), scale, float("nan"))
    centre, offset = features.mean(axis=0), float(residuals.mean())
    u, s, vt = np.linalg.svd((features - centre) / scale, full_matrices=False)
    along, best = u.T @ (residuals - offset), (float("inf"), 0.0)
    for penalty in _PENALTIES:
        kept = s**2 / (s**2 + penalty)
        leverage = (u**2) @ kept + 1.0 / len(residuals)
        missed = (residuals - offset - u @ (kept * along)) / np.maximum(1.0 - leverage, 1e-3)
        best = min(best, (float(np.mean(missed**2)), float(penalty)))
    slopes = vt.T @ (s / (s**2 + best[1]) * along)
    return Correction(offset, slopes, centre, scale, float(np.sqrt(best[0])))
