"""Values in units that a Gaussian process with a zero mean and variances about one takes."""

from dataclasses import dataclass

import numpy as np

from search.gaussian.kernel import Floats

KNEE = 2.0


@dataclass(frozen=True)
class Scaling:
    """A shift and a scale; where `tail` is set, what lies `KNEE` units below the middle counts by its logarithm.

    A merge that breaks the model is far worse than any other. As it is it would be most of the variance, and the model
    would spend itself on how bad is bad (compare the output warping of Vizier, arXiv:2408.11527, section 3.2).
    """

    middle: float
    unit: float
    tail: bool

    def __call__(self, values: Floats) -> Floats:
        """[n] -> [n], in the same order."""
        scaled = (values - self.middle) / self.unit
        return (
            np.where(scaled < -KNEE, -KNEE - np.log1p(np.maximum(-KNEE - scaled, 0.0)), scaled) if self.tail else scaled
        )


def warped(values: Floats) -> Scaling:
    """By the median and the spread of the better half."""
    middle = float(np.median(values))
    better = values[values >= middle] - middle
    return Scaling(middle, float(np.sqrt((better**2).mean())) or 1.0, tail=True)


def standard(values: Floats) -> Scaling:
    """By the mean and the standard deviation."""
    return Scaling(float(values.mean()), float(values.std()) or 1.0, tail=False)
