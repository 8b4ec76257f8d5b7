"""Ridge regression with the penalty that leaving each candidate out finds best.

Hoerl & Kennard, "Ridge Regression" (1970). Each leave-one-out error follows from one fit (Allen's PRESS, 1974), and
their root mean square is what is stated as the error of a new candidate.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search.estimates.contract import Floats

ALPHAS = tuple(float(a) for a in np.logspace(-1, 5, 13))
_TINY = 1e-10  # relative to the largest, below which a direction counts as none


@dataclass(frozen=True)
class Line:
    """A linear model `constant + features @ weights`.

    Attributes:
        alpha: the penalty.
        left_out: how far each past candidate is from what the others say of it, [candidates].
    """

    constant: float
    weights: Floats
    alpha: float
    left_out: Floats

    @property
    def error(self) -> float:
        """Root mean square of the leave-one-out errors."""
        return float(np.sqrt(np.mean(self.left_out**2)))

    def predict(self, features: Floats) -> Floats:
        """[candidates, p] -> [candidates]."""
        return np.asarray(self.constant + features @ self.weights)


def fit_ridge(features: Floats, values: Floats, alphas: Sequence[float] = ALPHAS) -> Line:
    """The ridge regression of the penalty whose leave-one-out errors are smallest; its constant is not penalised.

    One eigendecomposition of the smaller of both products serves all penalties.

    Args:
        features: [candidates, p]; two candidates at least.
        values: [candidates].
    """
    x, y = np.asarray(features, np.float64), np.asarray(values, np.float64)
    centre, middle = x.mean(axis=0), float(y.mean())
    x, y = x - centre, y - middle
    wide = x.shape[0] <= x.shape[1]
    sizes, found = np.linalg.eigh(x @ x.T if wide else x.T @ x)
    kept = sizes > _TINY * max(float(sizes[-1]), _TINY)
    sizes, found = sizes[kept], found[:, kept]
    directions = found if wide else (x @ found) / np.sqrt(sizes)  # [candidates, rank]
    along = directions.T @ y
    best: tuple[float, float, Floats] | None = None
    for alpha in alphas:
        kept_share = sizes / (sizes + alpha)
        reach = 1 / len(y) + (directions**2) @ kept_share  # how much each candidate decides on itself
        left_out = (y - directions @ (kept_share * along)) / np.maximum(1 - reach, _TINY)
        loss = float(np.mean(left_out**2))
        if best is None or loss < best[0]:
            best = loss, alpha, left_out
    assert best is not None, "there is a penalty"
    _, alpha, left_out = best
    scaled = along / (sizes + alpha)
    weights = x.T @ (found @ scaled) if wide else found @ (scaled * np.sqrt(sizes))
    return Line(middle - float(centre @ weights), weights, alpha, left_out)
