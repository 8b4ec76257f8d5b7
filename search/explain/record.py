"""The explanation of a winner, as its verdict keeps it. Records only."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

SIGNIFICANT = 0.05

ChangeKind = Literal["without", "flat", "rounded"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Ablation(_Frozen):
    """The winner with one thing changed, on the same search documents.

    Attributes:
        change: `without`: one expert's weights are 0; `flat`: every range of layers has the mean numbers; `rounded`:
            numbers have two digits.
        expert: of `without`, whose.
        score: its objective on these documents; None where it could not be scored, for the reason `why`.
        difference: the winner's objective minus this one's, with its 95 % interval `low` to `high`.
        p_value: two-sided, of the paired test of that difference.
        tasks: by how much the winner is better in each task, in the task's own units.
    """

    change: ChangeKind
    expert: str | None = None
    recipe_digest: str
    score: float | None = None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p_value: float | None = None
    tasks: dict[str, float] = {}
    why: str | None = None

    @property
    def said(self) -> str:
        """The change in words."""
        if self.change == "without":
            return f"without {self.expert}"
        return "all layers alike" if self.change == "flat" else "rounded to two digits"

    @property
    def shows(self) -> bool:
        """Whether these documents show that it is not the winner's equal."""
        return self.p_value is not None and self.p_value < SIGNIFICANT


class Direction(_Frozen):
    """One number of the search space, at the winner.

    Attributes:
        share: as in `Importance`.
        up, down: what the objective is expected to change by if the number is raised, or lowered, by a tenth of its
            range; None where the winner stands at that end, or outside the space.
    """

    parameter: str
    share: float
    up: float | None = None
    down: float | None = None


class Importance(_Frozen):
    """What the trials' scores depended on, by a model that adds up a curve for each number of the space.

    A share is the part of the model's variance over the searched ranges that is due to those numbers; what numbers do
    only together is not seen.

    Attributes:
        trials: that the model was fitted to.
        explained: of the variance of the trials' scores, what the model says of each from the others.
        experts: share of each expert's weights.
        places: share of each range of layers (or knot), as parameters name it; empty where there is one.
        parameters: share of each `METHOD.PARAMETER`, and of the choice of the method; with weights as one of them.
        directions: the most important numbers.
    """

    trials: int
    explained: float
    experts: dict[str, float]
    places: dict[str, float]
    parameters: dict[str, float]
    directions: tuple[Direction, ...] = ()


class Explanation(_Frozen):
    """What the winner owes to what.

    Attributes:
        trial: the winner's number.
        documents: search documents that the winner and each change of it were compared on.
        score: the winner's objective on these.
        ablations: experts by size of their weights, then the others; empty for a baseline.
        unused: experts whose weights are 0 everywhere.
        inseparable: experts who cannot be left out: nothing else is merged in some layers, or the method takes an
            expert whatever its weight is.
        importance: None where too few trials were run, or their scores cannot be told from their numbers.
    """

    trial: int
    documents: int = 0
    score: float | None = None
    ablations: tuple[Ablation, ...] = ()
    unused: tuple[str, ...] = ()
    inseparable: tuple[str, ...] = ()
    importance: Importance | None = None
