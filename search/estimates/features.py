"""What a ridge regression learns the full score from: items of a few documents, their mean, and coefficients.

Each kind of feature is a block that is centred on the past candidates and brought to a size of its own, since one
penalty for all would else favour the block of the larger numbers. The sizes decide what the estimate falls back on
where little is known: the objective on the documents seen is one column as heavy as all items together, so that with
many documents, or few past candidates, the estimate becomes the plain difference to the past ones; coefficients are
lighter, and decide where there are hardly any documents. (Measured: docs/benchmarks.md.)
"""

from dataclasses import dataclass, fields

import numpy as np

from search.estimates.contract import Estimate, Floats, History, New, Positions, Target
from search.estimates.ridge import Line, fit_ridge

SIZES = {"items": 1.0, "value": 1.0, "logs": 1.0, "log_means": 1.0, "coefficients": 0.3}  # of blocks; items count as 1


@dataclass(frozen=True)
class Features:
    """Candidates' features by kind, each [candidates, columns]; None where a kind is not used. NaN: not known.

    Attributes:
        value: the objective on the documents seen, one column.
        log_means: of each task, over the documents seen.
    """

    items: Floats | None = None
    value: Floats | None = None
    logs: Floats | None = None
    log_means: Floats | None = None
    coefficients: Floats | None = None


@dataclass(frozen=True)
class _Block:
    """How one kind is centred and sized; `factor` is a number, or one of each column."""

    name: str
    centre: Floats
    factor: Floats

    def of(self, features: Features) -> Floats:
        """[candidates, columns], of size 1 a column; what is not known counts as usual.

        Raises:
            ValueError: there is none of the kind.
        """
        rows = getattr(features, self.name)
        if rows is None:
            raise ValueError(f"a new candidate lacks the {self.name} that the estimator was fitted with")
        return np.asarray(np.nan_to_num(rows - self.centre) * self.factor)


@dataclass(frozen=True)
class FittedFeatures:
    """A regression on features. Attributes: `blocks`, those it was fitted with."""

    line: Line
    blocks: tuple[_Block, ...]

    def predict(self, features: Features) -> Estimate:
        """The full scores of candidates. Raises ValueError where they lack a kind of feature."""
        mean = self.line.predict(np.concatenate([block.of(features) for block in self.blocks], axis=1))
        return Estimate(mean, np.full(len(mean), self.line.error))


def fit_features(past: Features, values: Floats) -> FittedFeatures:
    """Learn from past candidates.

    Args:
        past: one kind at least.
        values: their full scores, [candidates].
    """
    given = [field.name for field in fields(past) if getattr(past, field.name) is not None]
    documents = next((getattr(past, name).shape[1] for name in given if name in ("items", "logs")), 1)
    blocks = tuple(_block(name, getattr(past, name), documents) for name in given)
    line = fit_ridge(np.concatenate([block.of(past) for block in blocks], axis=1), values)
    return FittedFeatures(line, blocks)


def _block(name: str, rows: Floats, documents: int) -> _Block:
    """Items and logs keep their columns' sizes relative to each other: what hardly varies tells hardly anything."""
    known = np.isfinite(rows)
    centre = np.where(known, rows, 0.0).sum(axis=0) / np.maximum(1, known.sum(axis=0))
    squares = np.nan_to_num(rows - centre) ** 2
    spread = np.sqrt(squares.mean() if name in ("items", "logs") else squares.mean(axis=0))
    size = np.sqrt(SIZES[name] * documents / rows.shape[1])
    return _Block(name, centre, np.divide(size, spread, out=np.zeros_like(spread), where=spread > 0))


@dataclass(frozen=True)
class _FittedRidge:
    inner: FittedFeatures
    ridge: "Ridge"
    target: Target
    seen: Positions

    def estimate(self, new: New) -> Estimate:
        """As `Fitted.estimate`. Raises ValueError where a candidate lacks features it was fitted with."""
        return self.inner.predict(self.ridge.features(new, self.target, self.seen))


@dataclass(frozen=True)
class Ridge:
    """Ridge on what is there of the kinds asked for.

    Attributes:
        items, logs, coefficients: which are used; `coefficients` alone asks for no document.
    """

    items: bool = True
    logs: bool = False
    coefficients: bool = True

    def fit(self, history: History, seen: Positions) -> _FittedRidge:
        """As `Estimator.fit`."""
        logs = None if history.logs is None else history.logs[:, seen]
        past = self.features(New(history.items[:, seen], history.coefficients, logs), history.target, seen)
        return _FittedRidge(fit_features(past, history.values), self, history.target, seen)

    def features(self, rows: New, target: Target, seen: Positions) -> Features:
        """The kinds asked for, as far as they are there."""
        logs = rows.logs if self.logs else None
        return Features(
            rows.items if self.items else None,
            target.combine(target.task_values(rows.items, seen))[:, None] if self.items else None,
            logs,
            None if logs is None else _there(target.task_values(logs, seen)),
            rows.coefficients if self.coefficients else None,
        )


def _there(values: Floats) -> Floats:
    """Without the tasks that have no document seen."""
    return values[:, np.isfinite(values).any(axis=0)]
