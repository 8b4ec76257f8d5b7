"""Benches that score recipes by a formula, without models: to try out an installation's plumbing, and to measure it.

The score of a task is a smooth function of the recipe's coefficients with its best place somewhere inside; every
task has another. The same recipe always scores the same. No torch, no models, no tasks are loaded; what it needs
of a study is in the database.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from db.store import Store
from evaluation.result import Part, TaskScore
from merging.recipe import GroupMerge, Recipe
from workers.benches import Progress
from workers.host import memory

DEVICE = "rehearsal"
TOKENS = 32  # that a document is said to have
MOST_STUDIES = 64


@dataclass(frozen=True)
class Rehearsal:
    """How a rehearsal goes.

    Attributes:
        steps: how often an evaluation says how far it is.
        seconds: how long scoring takes; by default no time at all.
    """

    steps: int = 4
    seconds: float = 0.0


@dataclass(frozen=True)
class _Task:
    name: str
    metric: str
    documents: Mapping[str, tuple[int, ...]]


class RehearsalBench:
    """Scores one study's recipes by a formula.

    Args:
        tasks: with the documents of each part.
    """

    device = DEVICE

    def __init__(self, tasks: tuple[_Task, ...], rehearsal: Rehearsal) -> None:
        self._tasks, self._rehearsal = tasks, rehearsal
        self._recipe: Recipe | None = None

    def build(self, recipe: Recipe) -> None:
        """Remember the recipe."""
        self._recipe = recipe

    def score(self, part: Part, on_progress: Progress) -> tuple[tuple[TaskScore, ...], int]:
        """Score the recipe remembered; what is said on the way is how it would be said of a model."""
        assert self._recipe is not None, "nothing was built"
        total, steps = sum(len(task.documents[part]) for task in self._tasks), self._rehearsal.steps
        for step in range(1, steps + 1):
            if self._rehearsal.seconds:
                time.sleep(self._rehearsal.seconds / steps)
            done = total * step // steps
            on_progress(done, total, done * TOKENS)
        return tuple(_score(self._recipe, task, part) for task in self._tasks), total * TOKENS


class RehearsalBenches:
    """Benches without models."""

    def __init__(self, store: Store, rehearsal: Rehearsal) -> None:
        self._store, self._rehearsal = store, rehearsal
        self._benches: OrderedDict[int, RehearsalBench] = OrderedDict()

    def bench(self, study_id: int) -> RehearsalBench:
        """The study's bench."""
        if study_id not in self._benches:
            while len(self._benches) >= MOST_STUDIES:
                self._benches.popitem(last=False)
            self._benches[study_id] = RehearsalBench(self._tasks(study_id), self._rehearsal)
        return self._benches[study_id]

    def facts(self) -> Mapping[str, object]:
        """This process's memory."""
        used, total = memory()
        return {"device_name": DEVICE, "memory_used": used, "memory_total": total}

    def _tasks(self, study_id: int) -> tuple[_Task, ...]:
        documents = self._store.studies.documents(study_id)
        listed = self._store.studies.by_id(study_id).spec["evaluation"]["tasks"]
        return tuple(
            _Task(
                name=task["name"],
                metric=task["metric"] or "acc",
                documents={part: ids for (name, part), ids in documents.items() if name == task["name"]},
            )
            for task in listed
        )


def _score(recipe: Recipe, task: _Task, part: Part) -> TaskScore:
    ability = sum(_ability(group, task.name) for group in recipe.groups) / len(recipe.groups)
    documents = task.documents[part]
    items = tuple(1 / (1 + math.exp(_between(-2.0, 2.0, task.name, doc) - ability)) for doc in documents)
    value = math.fsum(items) / len(items)
    spread = math.fsum((item - value) ** 2 for item in items) / max(len(items) - 1, 1)
    return TaskScore(
        task=task.name,
        metric=task.metric,
        value=value,
        stderr=math.sqrt(spread / len(items)),
        higher_is_better=True,
        documents=documents,
        items=items,
    )


def _ability(group: GroupMerge, task: str) -> float:
    """High near the task's favourite coefficients, and falling smoothly away from them."""
    far = sum((weight - _between(0.2, 0.8, task, name)) ** 2 for name, weight in group.weights.items())
    for name, value in group.parameters.items():
        if isinstance(value, bool | str | dict):
            far += _between(0.0, 0.1, task, group.method, name, str(value))
        else:
            far += 0.1 * math.tanh(value - _between(0.2, 0.8, task, name)) ** 2
    return 2.0 - _between(0.0, 0.5, task, group.method) - 2.0 * far / (1.0 + far)


@lru_cache(maxsize=1 << 16)
def _between(low: float, high: float, *what: object) -> float:
    """A number in that range that only depends on what it is of."""
    state = blake2b("\0".join(map(str, what)).encode(), digest_size=8).digest()
    return low + (high - low) * int.from_bytes(state) / 2**64
