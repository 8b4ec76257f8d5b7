"""The `evaluation` section of a study file: which tasks, which documents. No torch here."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, field_validator


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskSpec(_Frozen):
    """One lm-eval task.

    Attributes:
        metric: lm-eval's metric name, `name` or `name,filter`; None: the first the task declares.
        weight: its share in the objective; 0: scored and reported, not optimised.
        num_fewshot: overrides the task's own.
    """

    name: str = Field(min_length=1)
    metric: str | None = None
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    num_fewshot: Annotated[int, Field(ge=0)] | None = None


class EvaluationSpec(_Frozen):
    """What a candidate is scored on.

    Attributes:
        tasks: in the file also bare names.
        include_path: folder with lm-eval task YAMLs of your own.
        documents: most documents taken of each task; None: all.
        holdout: share of those that no search decision reads.
        batch_size: sequences scored at once.
    """

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    include_path: str | None = None
    documents: Annotated[int, Field(ge=2)] | None = None
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.3
    batch_size: Annotated[int, Field(ge=1)] = 64

    @field_validator("tasks", mode="before")
    @classmethod
    def _bare_names(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [{"name": task} if isinstance(task, str) else task for task in value]
