"""What can be wrong with a scoring: results of a trial, or faults of a task, each with its name.

MergesearchError
├── NonFiniteScore   a candidate's metric is NaN or infinity: a result of a trial, not a fault
├── TaskBroken       the code of a task, or of another evaluator, raised
└── EngineLost       vLLM failed: its engine cannot be asked any more
"""

from merging.errors import MergesearchError


class NonFiniteScore(MergesearchError):
    """A candidate's metric came out as NaN or infinity: a result of a trial, not a fault."""

    def __init__(self, task: str, metric: str) -> None:
        self.task, self.metric = task, metric
        super().__init__(f"the candidate scores NaN or infinity on {metric} of task {task}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.task, self.metric)


class TaskBroken(MergesearchError):
    """What a task brings along (filter, metric, aggregation, evaluator) raised on a candidate's answers.

    Args:
        cause: what was raised, as text.
    """

    def __init__(self, task: str, cause: str) -> None:
        self.task, self.cause = task, cause
        super().__init__(f"task {task} broke on the candidate's answers ({cause}); mend it or leave it out")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.task, self.cause)


class EngineLost(MergesearchError):
    """vLLM failed, and its engine cannot be asked any more; another process may start another.

    Args:
        cause: what was raised, as text.
    """

    def __init__(self, cause: str) -> None:
        self.cause = cause
        super().__init__(f"vLLM's engine failed ({cause})")

    def __reduce__(self) -> tuple[type, tuple[str]]:
        return type(self), (self.cause,)
