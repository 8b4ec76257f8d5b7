"""The contract back: what a candidate's evaluation found. Frozen records, no torch.

A candidate that cannot be scored is a result with a reason, not an exception: `Infeasible` for a merge that
makes no sense (NaN weights), `Failed` for a fault around it.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Part = Literal["search", "holdout"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskScore(_Frozen):
    """One task's score on one part of its documents, as lm-eval computes it.

    Attributes:
        metric: lm-eval's name, with its filter if that is not `none` (`exact_match,strict-match`).
        value: the aggregate over the documents.
        stderr: lm-eval's standard error; None where it gives none.
        documents: lm-eval's `doc_id`s, ascending.
        items: what the metric gave for each of them, in that order; `value` is its aggregate.
    """

    task: str
    metric: str
    value: float
    stderr: float | None
    higher_is_better: bool
    documents: tuple[int, ...]
    items: tuple[Any, ...]


class Scored(_Frozen):
    """Every task has a score.

    Attributes:
        tokens: positions the model computed.
        reused: documents whose items were known from earlier evaluations; if all were, nothing was built.
    """

    kind: Literal["scored"] = "scored"
    scores: tuple[TaskScore, ...]
    tokens: int
    build_seconds: float
    score_seconds: float
    device: str
    reused: int = 0


class Infeasible(_Frozen):
    """The merge itself makes no sense; trying again gives the same."""

    kind: Literal["infeasible"] = "infeasible"
    why: str


class Failed(_Frozen):
    """Something around the merge broke; `retryable` says whether another attempt may succeed."""

    kind: Literal["failed"] = "failed"
    why: str
    retryable: bool = False
