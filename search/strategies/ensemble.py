"""Averages of experts that an ensemble of their own answers promises most of (RADIN, arXiv:2401.17790).

Thousands are estimated once on the CPU; the one that looks best is scored in truth, and what was scored corrects the
estimates of the rest. An estimate proposes and never decides: the winner is the best that was scored.
"""

import numpy as np

from evaluation.statistics import Floats
from merging.recipe import Recipe
from search.seeds import derive
from search.soups.book import Book
from search.soups.counts import Counts, described, labelled, shares
from search.soups.ensemble import Ensemble
from search.soups.paired import Paired
from search.soups.residual import Correction, fitted
from search.soups.weightings import weightings
from search.strategies.contract import Exhausted, Observation, Proposal, Wait
from search.strategies.declared import options_of
from search.strategies.opening import Opening


def ensemble_soup(opening: Opening) -> "EnsembleSoup":
    """The strategy of that name."""
    options = options_of("ensemble_soup", opening.options)
    paired = Paired(opening.judge, opening.seed)
    return EnsembleSoup(Book(opening.space), paired, opening.seed, **options)


class EnsembleSoup:
    """Proposes by estimate, corrected by what was scored. Options as declared."""

    def __init__(self, book: Book, paired: Paired, seed: int, candidates: int, parts: int, apart: float) -> None:
        self._book, self._paired, self._seed = book, paired, seed
        self._most, self._parts, self._apart = candidates, parts, apart
        self._soups: list[Counts] = []
        self._ensemble: Ensemble | None = None
        self._able: list[int] = []  # positions of the experts that could be scored
        self._points = np.empty((0, 0))  # the soups' weights, [soups, experts]
        self._estimates = np.empty((0, 0))  # [soups, readings]
        self._tried: list[Floats] = []  # weights of all that are open or told
        self._near = np.empty(0)  # of each soup, the least share of weight by which it differs from one tried
        self._scored: list[tuple[Floats, float]] = []  # weights of soups that were scored, and what that gave
        self._read: list[Floats] = []  # their estimates, as far as they were asked for

    def propose(self, number: int) -> Proposal | Wait | Exhausted:
        """The average of the highest corrected estimate that is unlike any tried."""
        if not self._book.begun:
            return Wait()
        if self._ensemble is None and not self._begin():
            return Exhausted()
        expected = self._expected()
        for least in (self._apart, 1e-9):  # when all are close to one tried, at least another one
            able = self._near > least
            if able.any():
                best = int(np.argmax(np.where(able, expected, -np.inf)))
                soup = self._soups[best]
                recipe = self._book.recipe(soup)
                self._try(self._points[best])
                label = f"{expected[best]:.4f} expected of {described(soup, self._book.names)}"
                return Proposal(None, recipe, by=labelled(label))
        return Exhausted()

    def reserve(self, number: int, proposal: Proposal) -> None:
        """Note an average that is being scored."""
        self._note(proposal.recipe)

    def observe(self, observation: Observation) -> None:
        """Note a trial that ended: an expert's, or an average's."""
        self._paired.refer(observation)
        self._book.observe(observation)
        weights = self._weights(observation.recipe)
        if weights is not None and observation.value is not None and np.count_nonzero(weights) > 1:
            # beyond the constraints it is worth that much less
            self._scored.append((weights, observation.value - observation.violation))

    def explain(self) -> tuple[str, ...]:
        """How far the estimates can be trusted."""
        if self._ensemble is None:
            return ("estimates nothing yet: it waits for the experts' own scores, or has fewer than two",)
        lines = [f"estimated {len(self._soups)} averages of {len(self._able)} experts"]
        if self._scored:
            _, estimates, truth = self._known(self._ensemble)
            missed = float(np.sqrt(np.mean((truth - estimates.mean(axis=1)) ** 2)))
            lines.append(f"of {len(truth)} that were scored, estimates missed {missed:.4f}")
            if np.isfinite(error := self._correction(self._ensemble).error):
                lines.append(f"corrected by the others that were scored, {error:.4f}")
        return tuple(lines)

    def _begin(self) -> bool:
        """Estimate all averages; False: there is nothing to average."""
        self._able = sorted(self._book.order())
        if len(self._able) < 2:
            return False
        scores = [self._book.own_scores(position) for position in self._able]
        self._ensemble = Ensemble(self._paired.loosely(scores[0]), scores)
        drawn = (len(self._book.names), self._parts, self._most, derive(self._seed, "ensemble"))
        self._soups = weightings(self._able, *drawn)
        names = self._book.names
        self._points = np.array([list(shares(soup, names).values()) for soup in self._soups])
        self._estimates = self._ensemble.estimates(self._points[:, self._able])
        self._near = np.full(len(self._soups), np.inf)
        for weights in self._tried:
            self._measure(weights)
        return True

    def _expected(self) -> Floats:
        """The corrected estimate of every average: [soups]."""
        assert self._ensemble is not None, "estimates come first"
        expected: Floats = self._estimates.mean(axis=1)
        if self._scored:
            expected = expected + self._correction(self._ensemble)(_features(self._points, self._estimates))
        return expected

    def _correction(self, ensemble: Ensemble) -> Correction:
        points, estimates, truth = self._known(ensemble)
        scale = _features(self._points, self._estimates).std(axis=0)
        return fitted(_features(points, estimates), truth - estimates.mean(axis=1), scale)

    def _known(self, ensemble: Ensemble) -> tuple[Floats, Floats, Floats]:
        """Of the soups that were scored: weights, estimates, and what that gave."""
        points = np.stack([weights for weights, _ in self._scored])
        if len(self._read) < len(points):
            self._read.extend(ensemble.estimates(points[len(self._read) :, self._able]))
        return points, np.stack(self._read), np.array([value for _, value in self._scored])

    def _note(self, recipe: Recipe | None) -> None:
        weights = self._weights(recipe)
        if weights is not None:
            self._try(weights)

    def _try(self, weights: Floats) -> None:
        self._tried.append(weights)
        if self._ensemble is not None:
            self._measure(weights)

    def _measure(self, weights: Floats) -> None:
        np.minimum(self._near, np.abs(self._points - weights).sum(axis=1) / 2, out=self._near)

    def _weights(self, recipe: Recipe | None) -> Floats | None:
        found = self._book.shares(recipe)
        return None if found is None else np.array(found)


def _features(points: Floats, estimates: Floats) -> Floats:
    """What the correction goes by: how the readings differ, and who takes part."""
    return np.hstack([estimates, points])
