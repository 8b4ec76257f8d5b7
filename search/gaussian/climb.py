"""The most promising points: many are looked at around the best known ones, and the best of these are climbed from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from scipy.optimize import minimize
from scipy.stats.qmc import Sobol

from search.gaussian.encoding import Place
from search.gaussian.kernel import Floats
from search.gaussian.terms import Term

LOOKED_AT = 512  # points in all
CLIMBED = 3
STEPS = 12  # of L-BFGS from each
MOVED = 20  # coordinates that a point differs in, in the mean; fewer in a smaller space
KEPT = 8  # points returned beside those climbed to


@dataclass(frozen=True)
class Around:
    """A place to look around, and how far: half the side of a box in each column [columns]."""

    place: Place
    reach: Floats

    @property
    def box(self) -> tuple[Floats, Floats]:
        """The lowest and the highest values: [columns] each. What is no number in use stays as it is."""
        vector, active = self.place.vector, self.place.active
        low, high = np.maximum(vector - self.reach, -0.5), np.minimum(vector + self.reach, 0.5)
        return np.where(active, low, vector), np.where(active, high, vector)


def promising(terms: Sequence[Term], around: Sequence[Around], random: np.random.Generator) -> list[Place]:
    """Places, the most promising first."""
    count = max(LOOKED_AT // len(around), 4)
    places = np.concatenate([[i] * count for i in range(len(around))])
    points = np.concatenate([_near(each, count, random) for each in around])
    marks = _log(terms, points)
    order = np.argsort(-marks, kind="stable")
    climbed = [_climb(terms, around[places[i]], points[i]) for i in order[:CLIMBED]]
    found = [(mark, places[i], point) for (mark, point), i in zip(climbed, order, strict=False)]
    found += [(float(marks[i]), places[i], points[i]) for i in order[:KEPT]]
    found.sort(key=lambda each: -each[0])
    return [replace(around[place].place, vector=point) for _, place, point in found]


def _log(terms: Sequence[Term], points: Floats) -> Floats:
    return np.asarray(sum((term.log(points) for term in terms), np.zeros(len(points))))


def _near(around: Around, count: int, random: np.random.Generator) -> Floats:
    """Points in the box, most equal to the place in most coordinates: half from all over it, half close by."""
    (low, high), columns = around.box, np.flatnonzero(around.place.active)
    points = np.tile(around.place.vector, (count, 1))
    if not len(columns):
        return points
    half = count // 2
    spread = around.reach[columns] * 2.0 ** -random.uniform(0.0, 5.0, (half, 1))
    close = points[:half, columns] + spread * random.standard_normal((half, len(columns)))
    shares = (_sobol(len(columns), count - half) + random.random(len(columns))) % 1.0
    wide = low[columns] + shares * (high - low)[columns]
    moved = np.minimum(MOVED / len(columns), 1.0) * np.where(np.arange(count) % 2, 1.0, 0.25)
    mask = random.random((count, len(columns))) < moved[:, None]
    mask[np.arange(count), random.integers(len(columns), size=count)] = True
    points[:, columns] = np.where(mask, np.concatenate([close, wide]), points[:, columns])
    return np.clip(points, low, high)


@lru_cache(maxsize=8)
def _sobol(size: int, count: int) -> Floats:
    """The first points of Sobol's sequence, [count, size]."""
    drawn = Sobol(size, scramble=False).random_base2(max(count - 1, 1).bit_length())
    return np.asarray(drawn[:count])


def _climb(terms: Sequence[Term], around: Around, begin: Floats) -> tuple[float, Floats]:
    """The logarithm and the point at the end of a climb inside the box."""
    columns = np.flatnonzero(around.place.active)
    low, high = (side[columns] for side in around.box)

    def loss(inner: Floats) -> tuple[float, Floats]:
        point = begin[None].copy()
        point[0, columns] = inner
        found = [term.climbed(point) for term in terms]
        slopes = np.asarray(sum((slope[0, columns] for _, slope in found), np.zeros(len(columns))))
        return -float(sum(log[0] for log, _ in found)), -slopes

    if not len(columns):
        return float(_log(terms, begin[None])[0]), begin
    ended = minimize(
        loss, begin[columns], jac=True, method="L-BFGS-B",
        bounds=np.stack([low, high], axis=1), options={"maxiter": STEPS, "maxfun": 2 * STEPS},
    )  # fmt: skip
    point = begin.copy()
    point[columns] = np.clip(ended.x, low, high)
    return -float(ended.fun), point
