"""What the store hands out: frozen records, detached from any session."""

from dataclasses import dataclass
from typing import Any

from evaluation.result import Failed, Infeasible, Part, Scored
from merging.recipe import Recipe


@dataclass(frozen=True)
class Study:
    """One search. See `db/models.py` for the fields."""

    id: int
    name: str
    spec: dict[str, Any]
    frozen_digest: str
    setup: dict[str, Any]
    state: str
    why: str | None
    verdict: dict[str, Any] | None
    created_at: float
    finished_at: float | None


@dataclass(frozen=True)
class Trial:
    """One recipe tried. `value` is the objective, higher is better, once the trial is complete."""

    number: int
    origin: str
    params: dict[str, Any] | None
    evaluation_id: int | None
    state: str
    value: float | None
    why: str | None
    told_order: int | None
    created_at: float
    told_at: float | None


@dataclass(frozen=True)
class Evaluation:
    """One recipe to be scored on one part of the documents, and how far that is."""

    id: int
    study_id: int
    recipe: Recipe
    recipe_digest: str
    part: Part
    state: str
    attempts: int
    outcome: Scored | Infeasible | Failed | None


@dataclass(frozen=True)
class Lease:
    """The right to write one evaluation's outcome, until it expires or is taken away."""

    evaluation_id: int
    token: str
    recipe: Recipe
    part: Part
    attempt: int
