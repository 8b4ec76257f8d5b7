"""What a candidate must keep to: a task's value within a bound, at most so many answers lost. No torch, no numpy.

A constraint becomes one number a candidate; it is met where that number is 0 or less (as Optuna has it).
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from evaluation.result import TaskScore
from merging.errors import InvalidStudy

_KINDS = ("min", "max", "retain", "negative_flips")
BASE = "base"  # the reference that is the base model; any other is an expert's name


class ConstraintSpec(BaseModel):
    """One entry of the study's `constraints`: exactly one of `min`, `max`, `retain`, `negative_flips`.

    Attributes:
        task: whose value is bounded; for `negative_flips` whose documents count (None: every task whose documents
            are right or wrong).
        min, max: bounds of the task's value, in the metric's own units and direction.
        retain: by how much the task's value may be worse than the reference's on the same documents, in the metric's
            own units, whichever direction is better.
        negative_flips: the largest share of documents that the reference has right and the candidate wrong.
        against: the reference: `base`, or an expert's name; of `retain`, the base without one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str | None = None
    min: Annotated[float, Field(allow_inf_nan=False)] | None = None
    max: Annotated[float, Field(allow_inf_nan=False)] | None = None
    retain: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    negative_flips: Annotated[float, Field(ge=0, lt=1)] | None = None
    against: str | None = None

    @property
    def reference(self) -> str | None:
        """Who it compares with: `base`, or an expert's name; None: it compares with nobody."""
        return self.against or (BASE if self.retain is not None else None)

    @property
    def label(self) -> str:
        """What it asks for, in words."""
        if self.negative_flips is not None:
            where = f" in {self.task}" if self.task else ""
            return f"at most {self.negative_flips:g} of the documents{where} lost that {self.against} has right"
        if self.retain is not None:
            return f"{self.task} at most {self.retain:g} worse than {self.reference}"
        bound = f"at least {self.min:g}" if self.min is not None else f"at most {self.max:g}"
        return f"{self.task} {bound}"


def check_constraints(constraints: Sequence[ConstraintSpec], tasks: Sequence[str], experts: Sequence[str]) -> None:
    """See that constraints speak of what the study has.

    Args:
        tasks: names of the study's tasks.
        experts: names of its experts.

    Raises:
        InvalidStudy: an entry is no constraint, or names a task or model that the study does not have.
    """
    for index, asked in enumerate(constraints):
        key = f"constraints[{index}]"
        kinds = [name for name in _KINDS if getattr(asked, name) is not None]
        if len(kinds) != 1:
            problem = "asks for nothing" if not kinds else f"asks for {' and '.join(kinds)} at once"
            raise InvalidStudy(key, None, problem, f"write one of {', '.join(_KINDS)} in each entry")
        if asked.task is None and kinds != ["negative_flips"]:
            raise InvalidStudy(f"{key}.task", None, "is missing", f"name the task whose {kinds[0]} this is")
        if asked.task is not None and asked.task not in tasks:
            raise InvalidStudy(f"{key}.task", asked.task, "is no task of this study", f"use {_one_of(tasks)}")
        if kinds == ["negative_flips"] and asked.against is None:
            raise InvalidStudy(f"{key}.against", None, "is missing", f"use {_one_of([BASE, *experts])}")
        if asked.against is not None and kinds[0] in ("min", "max"):
            raise InvalidStudy(f"{key}.against", asked.against, f"means nothing beside {kinds[0]}", "leave it out")
        if asked.against is not None and asked.against not in (BASE, *experts):
            remedy = f"use {_one_of([BASE, *experts])}"
            raise InvalidStudy(f"{key}.against", asked.against, "is no model of this study", remedy)


def excess(
    asked: ConstraintSpec, key: str, scores: Sequence[TaskScore], references: Mapping[str, Sequence[TaskScore]]
) -> float:
    """By how much a candidate breaks a constraint; 0 or less where it meets it.

    Args:
        key: where the constraint stands in the study (`constraints[0]`), for errors.
        references: scores of what the constraint compares with, by `reference`.

    Raises:
        InvalidStudy: the documents of a task are not right or wrong, so that none can be lost.
        InvalidInput: the reference has no value on the candidate's documents.
    """
    if asked.retain is not None:
        assert asked.task is not None and asked.reference is not None, "the study was checked"
        return lost(asked.task, scores, references[asked.reference]) - asked.retain
    if asked.negative_flips is not None:
        assert asked.against is not None, "the study was checked"
        return negative_flips(asked.task, key, scores, references[asked.against]) - asked.negative_flips
    (value,) = (s.value for s in scores if s.task == asked.task)
    return asked.min - value if asked.min is not None else value - (asked.max or 0.0)


def lost(task: str, scores: Sequence[TaskScore], reference: Sequence[TaskScore]) -> float:
    """By how much a candidate's value of a task is worse than the reference's on the documents of the candidate.

    Raises:
        InvalidInput: the reference was not scored on them all, or its value on some of its documents is not known.
    """
    (ours,) = (s for s in scores if s.task == task)
    (theirs,) = (s for s in reference if s.task == task)
    if ours.documents != theirs.documents:
        from evaluation.statistics import aggregations_of, restricted  # numpy, which study files are read without

        (theirs,) = restricted([theirs], {task: ours.documents}, aggregations_of([theirs]))
    worse = theirs.value - ours.value
    return worse if ours.higher_is_better else -worse


def negative_flips(task: str | None, key: str, scores: Sequence[TaskScore], reference: Sequence[TaskScore]) -> float:
    """The share of documents that the reference has right and the candidate wrong, of those both were scored on.

    Right is an item of 1 where higher is better, of 0 where lower is.

    Args:
        task: count its documents alone; None: those of every task whose items are all 0 or 1.

    Raises:
        InvalidStudy: the items of the task (without one: of every task) are not 0 or 1.
    """
    theirs = {s.task: s for s in reference}
    pairs = [(s, theirs[s.task]) for s in scores if task in (None, s.task) and s.task in theirs]
    counted = [pair for pair in pairs if all(map(right_or_wrong, pair))]
    if not counted:
        metrics = ", ".join(f"{s.task} ({s.metric})" for s, _ in pairs)
        problem = f"needs documents that are right or wrong, which these are not: {metrics}"
        raise InvalidStudy(
            f"{key}.negative_flips", None, problem, "name a task with a metric such as acc, or bound a min"
        )
    lost = total = 0
    for ours, reference_score in counted:
        were = dict(zip(reference_score.documents, _rights(reference_score), strict=True))
        now = [(right, were[i]) for i, right in zip(ours.documents, _rights(ours), strict=True) if i in were]
        lost += sum(before and not right for right, before in now)
        total += len(now)
    return lost / total if total else 0.0


def right_or_wrong(score: TaskScore) -> bool:
    """Whether every item of a task is 0 or 1 (or false or true)."""
    return all(isinstance(item, int | float) and item in (0, 1) for item in score.items)


def _rights(score: TaskScore) -> list[bool]:
    return [bool(item) == score.higher_is_better for item in score.items]


def _one_of(names: Sequence[str]) -> str:
    return f"one of {', '.join(names)}"
