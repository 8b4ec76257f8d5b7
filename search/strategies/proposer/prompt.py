"""What a model is shown: the space, the best and the latest trials, and what of its last answer was refused.

Names of parameters, experts, methods and tasks leave this machine, and scores; no path, text or document does.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from evaluation.result import TaskScore
from merging.catalog import Scalar
from search.space import Dimension, Space, dimensions, middle
from search.strategies.contract import Observation

DIGITS = 4  # of a number that is shown; proposals that differ in later ones alone count as the same
LONGEST = 60_000  # characters; of a longer prompt fewer trials are shown
SYSTEM = (
    "You tune how fine-tuned language models are merged. A point of the search space is a JSON object that maps every "
    "parameter of the space to a value in its range; parameters of a method appear only where that method is chosen. "
    "Each trial has a value to be maximised, and scores of single tasks. Answer with a JSON list of {batch} new "
    "points, different from all trials, and nothing else."
)


@dataclass(frozen=True)
class Record:
    """A trial that ended, as it is shown."""

    number: int
    params: Mapping[str, Scalar]
    value: float | None
    violation: float
    pruned: bool
    read: Callable[[], tuple[TaskScore, ...]] | None = field(repr=False)

    @staticmethod
    def of(seen: Observation, params: Mapping[str, Scalar]) -> "Record":
        """The record of an observed point of the space."""
        return Record(seen.number, params, seen.value, seen.violation, seen.pruned, seen.scores)

    @property
    def rank(self) -> tuple[float, float, int]:
        """Sorts the best first."""
        return self.violation, float("inf") if self.value is None else -self.value, self.number

    @cached_property
    def scores(self) -> dict[str, float]:
        """Its score on each task; reads them once, when first shown."""
        return {} if self.read is None else {score.task: _short(score.value) for score in self.read()}

    def shown(self) -> dict[str, Any]:
        """As the prompt has it."""
        about: dict[str, Any] = {"parameters": _rounded(self.params)}
        if self.value is None:
            return about | {"value": None}  # the merge made no sense, or failed
        about |= {"value": _short(self.value), "scores": self.scores}
        if self.pruned:
            about["stopped_early"] = True
        return about | ({"beyond_constraints": _short(self.violation)} if self.violation else {})


def messages(
    space: Space, records: Sequence[Record], trying: Sequence[Mapping[str, Scalar]], refused: Sequence[str],
    batch: int, history: int,
) -> list[dict[str, str]]:  # fmt: skip
    """The chat.

    Args:
        records: trials that ended, in that order. trying: the points of those that are open.
        refused: why parts of the last answer were not tried.
        history: how many of the best and of the latest are shown.
    """
    while len(text := _text(space, records, trying, refused, history)) > LONGEST and history > 1:
        history //= 2
    return [{"role": "system", "content": SYSTEM.format(batch=batch)}, {"role": "user", "content": text}]


def _text(
    space: Space,
    records: Sequence[Record],
    trying: Sequence[Mapping[str, Scalar]],
    refused: Sequence[str],
    history: int,
) -> str:
    best = sorted(records, key=lambda record: record.rank)[:history]
    named = {record.number for record in best}
    latest = [record for record in records[-history:] if record.number not in named]
    parts: dict[str, Any] = {
        "space": [_dimension(d, named=len(space.methods) > 1) for d in _every(space)],
        "best trials, the best first": [record.shown() for record in best],
        "latest other trials": [record.shown() for record in latest],
    }
    if trying:
        parts["being tried now"] = [_rounded(params) for params in trying[-history:]]
    if refused:
        parts["refused of your last answer"] = list(refused)
    return "\n".join(f"{name}: {json.dumps(part, separators=(',', ':'))}" for name, part in parts.items())


def _every(space: Space) -> list[Dimension]:
    """The dimensions of all methods."""
    found: dict[str, Dimension] = {}
    for row in space.methods:
        under = dimensions(space, lambda d, name=row.name: name if d.role == "method" else middle(d))  # type: ignore[misc]
        found |= {d.name: d for d in under}
    return list(found.values())


def _dimension(dimension: Dimension, *, named: bool) -> dict[str, Any]:
    about: dict[str, Any] = {"name": dimension.name}
    if dimension.kind in ("bool", "choice"):
        about["choices"] = list(dimension.choices or (False, True))
    else:
        about |= {"type": dimension.kind, "low": dimension.low, "high": dimension.high}
        about |= {"scale": "log"} if dimension.log else {}
    return about | ({"method": dimension.method} if named and dimension.method else {})


def _rounded(params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {name: _short(value) if isinstance(value, float) else value for name, value in params.items()}


def _short(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
