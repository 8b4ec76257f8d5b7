"""What is believed of a space after some trials: a Gaussian process an objective, others for the constraints.

What failed has a process of its own, which is not fitted: a trial without a value is a label, and never a number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.gaussian.fit import Hyper, Prior, fit
from search.gaussian.kernel import Floats, Kernel
from search.gaussian.observed import Known, fewer
from search.gaussian.process import Process
from search.gaussian.scaling import Scaling, standard, warped
from search.gaussian.terms import HypervolumeImprovement, Improvement, Met, Term
from search.hypervolume import front

LABEL_NOISE = 0.02
LABEL_MOST = 0.25  # expected label up to which a point is taken for sound
LABEL_SCALE = 3.0  # how much farther than of a value a trial's failure says something
BOXED = 4  # objectives up to which the hypervolume is improved; its boxes grow with the power of their number
FRONT_MOST = {2: 60, 3: 20, 4: 10}
MARGIN = 0.1  # of the front's span, by which the reference point lies below its worst


@dataclass(frozen=True)
class Sample:
    """What is known of one objective or one constraint.

    Attributes:
        points: [n, columns]. values: [n]. missing: [n], as `fewer`.
    """

    points: Floats
    values: Floats
    missing: Floats


@dataclass(frozen=True)
class Fitted:
    """The units and the hyper-parameters of objectives and of constraints."""

    prior: Prior
    objectives: tuple[tuple[Scaling, Hyper], ...]
    constraints: tuple[tuple[Scaling, Hyper], ...]


def fitted(prior: Prior, known: Sequence[Known]) -> Fitted:
    """Fitted to these trials, at least one. Of several objectives the units are linear, as volumes are."""

    def each(samples: Sequence[Sample], scale: Callable[[Floats], Scaling]) -> tuple[tuple[Scaling, Hyper], ...]:
        units = [scale(sample.values) for sample in samples]
        found = zip(units, samples, strict=True)
        return tuple((unit, fit(prior, s.points, unit(s.values), s.missing)) for unit, s in found)

    objectives, constraints = _samples(known)
    return Fitted(prior, each(objectives, warped if len(objectives) == 1 else standard), each(constraints, standard))


class Model:
    """What is believed of a space.

    Args:
        known: trials with values, at least one.
        failed: [f, columns] points of trials without.
        pending: [p, columns] points of open trials: the model takes each to come out as it expects.
    """

    def __init__(self, fits: Fitted, known: Sequence[Known], failed: Floats, pending: Floats) -> None:
        self._known = known
        judged = any(k.constraints for k in known)  # those that were not, among others that were, may not meet them
        self._good = np.array([k.meets and (bool(k.constraints) or not judged) for k in known])
        objectives, constraints = _samples(known)
        self.processes = [
            _process(hyper, unit, sample, pending)
            for (unit, hyper), sample in zip(fits.objectives, objectives, strict=True)
        ]
        everything = np.concatenate([objectives[0].points, pending])
        self.expected = np.stack([p.mean(everything)[:, 0] for p in self.processes], axis=1)  # known, then pending
        self._met = [  # a constraint that nobody was judged by when the fit was made has to wait for the next
            Met(_process(hyper, unit, sample, pending), unit(np.zeros(1)))
            for (unit, hyper), sample in zip(fits.constraints, constraints, strict=False)
        ]
        if len(failed):
            self._met.append(_soundness(fits.prior, objectives[0].points, failed))

    def order(self) -> list[int]:
        """The known trials, the most promising centres first: those that meet the constraints, by expected value.

        Of several objectives the front comes first, those at its gaps before those in a crowd.
        """
        expected = self.expected[: len(self._known)]
        marks = expected.mean(axis=1)
        if expected.shape[1] > 1:
            marks = marks - marks.max()
            for index, gap in _gaps(expected, front(expected)):
                marks[index] = 1.0 + gap
        broken = np.array([sum(max(c, 0.0) for c in k.constraints) for k in self._known])
        return [int(i) for i in np.lexsort((-marks, broken, ~self._good))]

    def terms(self, weights: Sequence[float]) -> list[Term]:
        """What a proposal maximises; where no trial meets the constraints, the probability to meet them.

        Args:
            weights: of the objectives, where there are too many for a hypervolume.
        """
        if not self._good.any() and self._met:
            return list(self._met)
        pending = np.ones(len(self.expected) - len(self._good), dtype=np.bool_)
        taken = self.expected[np.concatenate([self._good | ~self._good.any(), pending])]
        if 1 < len(self.processes) <= BOXED:
            return [self._hypervolume(taken), *self._met]
        return [Improvement(self.processes, weights, float((taken @ np.array(weights)).max())), *self._met]

    def _hypervolume(self, expected: Floats) -> Term:
        edge = expected[front(expected)]
        low, high = edge.min(axis=0), edge.max(axis=0)
        spread = expected.max(axis=0) - expected.min(axis=0)
        span = np.where(high > low, high - low, np.where(spread > 0, spread, 1.0))
        edge = _thinned(edge, FRONT_MOST[len(self.processes)])
        return HypervolumeImprovement(self.processes, edge, low - MARGIN * span)


def _process(hyper: Hyper, unit: Scaling, sample: Sample, pending: Floats) -> Process:
    """The process of one objective or constraint, given what is known and what is pending."""
    values, noise = unit(sample.values), hyper.noise(sample.missing)
    process = Process(hyper.kernel, sample.points, values[:, None], noise)
    if not len(pending):
        return process
    values = np.concatenate([values, process.mean(pending)[:, 0]])
    noise = np.concatenate([noise, hyper.noise(np.zeros(len(pending)))])
    return Process(hyper.kernel, np.concatenate([sample.points, pending]), values[:, None], noise)


def _soundness(prior: Prior, sound: Floats, failed: Floats) -> Met:
    """Whether a trial has a value at all: 1 is one that failed, 0 one that did not."""
    labels = np.concatenate([np.zeros(len(sound)), np.ones(len(failed))])[:, None]
    points, noise = np.concatenate([sound, failed]), np.full(len(labels), LABEL_NOISE)
    kernel = Kernel(LABEL_SCALE * prior.scales, 1.0, 0.0, prior.shares)
    return Met(Process(kernel, points, labels, noise), np.array([LABEL_MOST]))


def _samples(known: Sequence[Known]) -> tuple[list[Sample], list[Sample]]:
    """The objectives and the constraints; those stopped by a proxy were judged by no constraint."""
    judged = [k for k in known if k.constraints]
    columns = list(np.array([k.values for k in known]).T), list(np.array([k.constraints for k in judged]).T)
    first, second = (
        [Sample(_points(these), column, fewer(these)) for column in found]
        for these, found in zip((known, judged), columns, strict=True)
    )
    return first, second


def _points(known: Sequence[Known]) -> Floats:
    return np.stack([k.place.vector for k in known])


def _gaps(values: Floats, members: NDArray[np.intp]) -> list[tuple[int, float]]:
    """How lonely each member of a front is: its distances to its neighbours along each objective, the ends 2 each."""
    gaps = dict.fromkeys((int(m) for m in members), 0.0)
    for column in values[members].T:
        order = np.argsort(column, kind="stable")
        span = float(column[order[-1]] - column[order[0]]) or 1.0
        for rank, place in enumerate(order):
            inside = 0 < rank < len(order) - 1
            gap = (column[order[rank + 1]] - column[order[rank - 1]]) / span if inside else 2.0
            gaps[int(members[place])] += float(gap)
    return list(gaps.items())


def _thinned(edge: Floats, most: int) -> Floats:
    """So many of a front, evenly along its first objective."""
    if len(edge) <= most:
        return edge
    order = np.argsort(edge[:, 0], kind="stable")
    return np.asarray(edge[order[np.linspace(0, len(edge) - 1, most).round().astype(int)]])
