"""Item response theory: a candidate has abilities, a document asks for them, and both are learned from the past.

Reckase's multidimensional two-parameter model: the chance of a right answer is sigmoid(a . theta - b). From a new
candidate's items its abilities are estimated, and from those its chance on every document not seen: pIRT; gp-IRT mixes
that with the anchors' estimate (Polo et al., "tinyBenchmarks", arXiv:2402.14992, section 4.2). What the past candidates
were is needed only for the fit: a study without a history can use an older one's over the same documents.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from search.estimates.anchors import Anchors
from search.estimates.contract import Estimate, Fitted, Floats, History, New, Positions, Target
from search.estimates.plain import known, new_error

DIMENSIONS = 5
STEPS = 300  # of L-BFGS; it stops earlier where nothing changes
_WIDE = 0.1  # precision of the prior of a document's difficulty, whose mean is not 0


@dataclass(frozen=True)
class Documents:
    """What the documents ask for: `slopes` a, [documents, dimensions], and `difficulty` b, [documents]."""

    slopes: Floats
    difficulty: Floats

    def chances(self, abilities: Floats) -> Floats:
        """Of a right answer: [candidates, dimensions] -> [candidates, documents]."""
        return _sigmoid(abilities @ self.slopes.T - self.difficulty)


def fit_documents(items: Floats, dimensions: int = DIMENSIONS) -> tuple[Documents, Floats]:
    """Documents and the candidates' abilities, [candidates, dimensions], of the highest posterior.

    Priors: abilities and slopes standard normal, difficulties wide. Begins at the items' singular vectors, so that the
    same items give the same model.

    Args:
        items: between 0 and 1, [candidates, documents]; NaN where not known.
    """
    there = np.isfinite(items)
    answers = known(items)
    candidates, documents = answers.shape
    rank = min(dimensions, candidates, documents)
    left, sizes, right = np.linalg.svd(answers - answers.mean(axis=0), full_matrices=False)
    abilities, slopes = np.zeros((candidates, dimensions)), np.zeros((documents, dimensions))
    abilities[:, :rank] = left[:, :rank] * np.sqrt(candidates)
    slopes[:, :rank] = 4 * (sizes[:rank, None] * right[:rank]).T / np.sqrt(candidates)
    easy = np.clip(answers.mean(axis=0), 0.02, 0.98)
    begin = np.concatenate([abilities.ravel(), slopes.ravel(), -np.log(easy / (1 - easy))])
    cut = (candidates * dimensions, (candidates + documents) * dimensions)

    def loss(point: Floats) -> tuple[float, Floats]:
        theta, a = point[: cut[0]].reshape(-1, dimensions), point[cut[0] : cut[1]].reshape(-1, dimensions)
        b = point[cut[1] :]
        cost, wrong = _misfit(theta @ a.T - b, answers, there)
        prior = 0.5 * (np.sum(theta**2) + np.sum(a**2) + _WIDE * np.sum(b**2))
        slope = np.concatenate(
            [(wrong @ a + theta).ravel(), (wrong.T @ theta + a).ravel(), _WIDE * b - wrong.sum(axis=0)]
        )
        return cost + float(prior), slope

    found = _minimum(loss, begin)
    model = Documents(found[cut[0] : cut[1]].reshape(-1, dimensions), found[cut[1] :])
    return model, found[: cut[0]].reshape(-1, dimensions)


def fit_abilities(documents: Documents, items: Floats, seen: Positions) -> Floats:
    """The abilities of candidates with those items on the documents seen: [candidates, dimensions].

    Args:
        items: [candidates, documents seen].
    """
    slopes, difficulty = documents.slopes[seen], documents.difficulty[seen]
    there, answers = np.isfinite(items), np.nan_to_num(items)

    def loss(point: Floats) -> tuple[float, Floats]:
        theta = point.reshape(len(items), -1)
        cost, wrong = _misfit(theta @ slopes.T - difficulty, answers, there)
        return cost + 0.5 * float(np.sum(theta**2)), np.asarray((wrong @ slopes + theta).ravel())

    return _minimum(loss, np.zeros(len(items) * slopes.shape[1])).reshape(len(items), -1)


@dataclass(frozen=True)
class _FittedIrt:
    """Attributes: `trust`, the share of the anchors' estimate in the mix; 0 is pIRT alone."""

    target: Target
    documents: Documents
    seen: Positions
    anchors: Fitted | None
    trust: float = 0.0
    shift: float = 0.0
    error: float = 0.0

    def estimate(self, new: New) -> Estimate:
        """As `Fitted.estimate`."""
        chances = self.documents.chances(fit_abilities(self.documents, new.items, self.seen))
        chances[:, self.seen] = new.items  # what was seen is known
        found = self.target.value(chances)
        if self.anchors is not None:
            found = self.trust * self.anchors.estimate(new).mean + (1 - self.trust) * found
        found = found + self.shift
        return Estimate(found, np.full(len(found), self.error))


@dataclass(frozen=True)
class Irt:
    """pIRT, or gp-IRT where it is mixed with the anchors. For items between 0 and 1.

    Attributes:
        mixed: gp-IRT. The share of the anchors is b^2 / (b^2 + v / 4n), with b the error of pIRT on the past
            candidates and v the mean variance of items.
        model: the documents, of an older study over the same ones; None: fitted on the history.
    """

    dimensions: int = DIMENSIONS
    mixed: bool = True
    model: Documents | None = None

    def fit(self, history: History, seen: Positions) -> Fitted:
        """As `Estimator.fit`; errors are those of the past candidates."""
        documents = self.model or fit_documents(history.items, self.dimensions)[0]
        past = New(known(history.items)[:, seen])
        alone = _FittedIrt(history.target, documents, seen, None)
        off = history.values - alone.estimate(past).mean
        if not self.mixed:
            return _settled(alone, off)
        anchors = Anchors().fit(history, seen)
        bias, noise = float(np.mean(off**2)), float(np.mean(known(history.items).var(axis=0))) / (4 * len(seen))
        trust = bias / (bias + noise) if bias > 0 else 0.0
        both = _FittedIrt(history.target, documents, seen, anchors, trust)
        return _settled(both, history.values - both.estimate(past).mean)


def _settled(found: _FittedIrt, off: Floats) -> _FittedIrt:
    """Corrected by what it was off on average."""
    shift, error = float(off.mean()), new_error(off - off.mean())
    return _FittedIrt(found.target, found.documents, found.seen, found.anchors, found.trust, shift, error)


def _misfit(logits: Floats, answers: Floats, there: Any) -> tuple[float, Floats]:
    """Cross entropy of the answers, and its slope by the logits; nothing where an item is not known."""
    cost = np.logaddexp(0.0, logits) - answers * logits
    return float(np.sum(cost[there])), np.where(there, _sigmoid(logits) - answers, 0.0)


def _sigmoid(logits: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


def _minimum(loss: Any, begin: Floats) -> Floats:
    from scipy.optimize import minimize  # a second to import, which those who only race need not wait for

    return np.asarray(minimize(loss, begin, jac=True, method="L-BFGS-B", options={"maxiter": STEPS}).x)
