"""What candidates cost: a Gaussian process of the logarithm of seconds, and the front of cost and value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from search.gaussian.fit import Hyper, Prior, fit
from search.gaussian.kernel import Floats
from search.gaussian.observed import MOST_FEWER, Known, fewer
from search.gaussian.process import Process
from search.gaussian.scaling import Scaling, standard
from search.gaussian.terms import Met

SHARE_SCALE = 0.5  # length scale of the column that says how much of a candidate was scored
APART = float(np.log(1.2))  # costs by less than a fifth apart count as equal: seconds are noisy


@dataclass(frozen=True)
class CostFit:
    """The units and the hyper-parameters of the cost's process."""

    unit: Scaling
    hyper: Hyper


class Costs:
    """What is believed of the seconds that a candidate takes when it is scored in full.

    A trial that was stopped early cost less for that reason alone. So a column more says how many of the documents it
    was scored on, and what is asked for is asked at all of them.

    Args:
        known: trials whose seconds are known, at least one.
        seconds: of each, by number.
    """

    def __init__(self, fits: CostFit, known: Sequence[Known], seconds: Mapping[int, float]) -> None:
        self._unit = fits.unit
        points, logs = _samples(known, seconds)
        noise = fits.hyper.noise(np.zeros(len(known)))
        self._process = Process(fits.hyper.kernel, points, fits.unit(logs)[:, None], noise)

    def expected(self, points: Floats) -> Floats:
        """Logarithms of seconds in full: [m, columns] -> [m]."""
        return np.asarray(self._process.mean(_whole(points))[:, 0] * self._unit.unit + self._unit.middle)

    def within(self, budget: float, points: Floats) -> Floats:
        """The logarithm of the probability to cost at most `budget` (itself a logarithm): [m, columns] -> [m]."""
        return Met(self._process, self._unit(np.array([budget]))).log(_whole(points))


def fitted_costs(prior: Prior, known: Sequence[Known], seconds: Mapping[int, float]) -> CostFit:
    """Fitted to these trials, whose seconds are known; at least one."""
    points, logs = _samples(known, seconds)
    unit = standard(logs)
    wider = Prior(np.append(prior.scales, SHARE_SCALE))
    return CostFit(unit, fit(wider, points, unit(logs), np.zeros(len(known))))


def front_of(costs: Floats, values: Floats) -> list[int]:
    """Whom nobody beats that costs no more to speak of: indices, the cheapest first.

    Args:
        costs: [n] logarithms of seconds. values: [n] larger is better.
    """
    classes = np.floor((costs - costs.min()) / APART)
    found: list[int] = []
    for index in np.lexsort((-values, classes)):
        if not found or values[index] > values[found[-1]]:
            found.append(int(index))
    return found


def _samples(known: Sequence[Known], seconds: Mapping[int, float]) -> tuple[Floats, Floats]:
    """Points [n, columns + 1] and logarithms of seconds [n]."""
    shares = -np.log(1.0 + fewer(known)) / np.log(1.0 + MOST_FEWER)  # 0: all documents
    points = np.stack([k.place.vector for k in known])
    return np.column_stack([points, shares]), np.log([seconds[k.number] for k in known])


def _whole(points: Floats) -> Floats:
    return np.column_stack([points, np.zeros(len(points))])
