"""What a worker asks of a bench: the place where a study's candidates are built and scored. No torch here.

`workers.model_bench` has the real one, `workers.rehearsal` one that scores by a formula.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from evaluation.result import TaskScore
from evaluation.wanted import Wanted
from merging.recipe import Recipe

Progress = Callable[[int, int, int], None]
"""Called with the documents done, their total, and the tokens so far; what it raises ends the scoring."""

Measuring = Callable[[int, int], None]
"""Called while what a recipe looks at is measured, with the artefacts done and how many were missing; what it raises
ends the measuring."""


class DeviceLost(Exception):
    """Nothing works on the device in this process any more; another process may still use it."""


class Impossible(Exception):
    """The candidate makes no sense (NaN, infinity), and trying again gives the same."""


class Bench(Protocol):
    """Everything the candidates of one study share.

    Attributes:
        device: the device as a person knows it.
    """

    device: str

    def build(self, recipe: Recipe, on_measuring: Measuring) -> None:
        """Make the recipe's candidate the one that is scored next.

        Args:
            on_measuring: called between passes over data, if the recipe needs any that nobody has made before.

        Raises:
            Impossible: it has NaN or infinity.
            DeviceLost, MemoryError: as they say.
        """
        ...

    def score(self, wanted: Wanted, on_progress: Progress) -> tuple[tuple[TaskScore, ...], int]:
        """Score the candidate on the documents that are missing, and join them with what is known.

        Where nothing is missing the candidate need not have been built.

        Returns:
            One score a task that is wanted, and the tokens it took.

        Raises:
            Impossible: a metric has no finite value.
            MergesearchError: a task's code raised; the message names the task.
            DeviceLost, MemoryError: as they say.
        """
        ...


class Benches(Protocol):
    """The benches of one worker process, made when they are needed and kept while there is room."""

    def bench(self, study_id: int) -> Bench:
        """The bench of that study. The caller lets go of it before asking for another.

        Raises:
            Conflict: the tasks or models are not those the study was created with.
            InvalidInput: a model or a task cannot be opened any more.
            DeviceLost, MemoryError: as they say.
        """
        ...

    def facts(self) -> Mapping[str, object]:
        """What is to be known of the device: `device_name`, and `memory_used` and `memory_total` in bytes."""
        ...
