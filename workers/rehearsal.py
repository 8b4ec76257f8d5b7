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

from db.documents import REHEARSAL
from db.store import Store
from evaluation.result import TaskScore
from evaluation.spec import PROXY
from evaluation.wanted import Wanted
from merging.recipe import GroupMerge, Recipe
from workers.benches import Measuring, Progress
from workers.host import memory

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


class RehearsalBench:
    """Scores one study's recipes by a formula.

    Args:
        metrics: of each task, in the study's order.
    """

    device = REHEARSAL

    def __init__(self, metrics: Mapping[str, str], rehearsal: Rehearsal) -> None:
        self._metrics, self._rehearsal = metrics, rehearsal
        self._recipe: Recipe | None = None

    def build(self, recipe: Recipe, on_measuring: Measuring) -> None:
        """Remember the recipe; nothing is measured for a formula."""
        self._recipe = recipe

    def score(self, wanted: Wanted, on_progress: Progress) -> tuple[tuple[TaskScore, ...], int]:
        """Score the recipe remembered; what is said on the way is how it would be said of a model."""
        missing, steps = sum(map(len, wanted.missing.values())), self._rehearsal.steps
        for step in range(1, steps + 1) if missing else ():
            if self._rehearsal.seconds:
                time.sleep(self._rehearsal.seconds / steps)
            done = missing * step // steps
            on_progress(wanted.reused + done, wanted.reused + missing, done * TOKENS)
        scores = (self._score(name, wanted) for name in self._metrics if name in wanted.documents)
        return tuple(scores), missing * TOKENS

    def _score(self, task: str, wanted: Wanted) -> TaskScore:
        documents = wanted.documents[task]
        found = dict(wanted.known.get(task, {}))
        if missing := wanted.missing.get(task):
            assert self._recipe is not None, "nothing was built"
            ability = sum(_ability(group, task) for group in self._recipe.groups) / len(self._recipe.groups)
            found |= {i: 1 / (1 + math.exp(_between(-2.0, 2.0, task, i) - ability)) for i in missing}
        items = tuple(found[doc_id] for doc_id in documents)
        value = math.fsum(items) / len(items)
        spread = math.fsum((item - value) ** 2 for item in items) / max(len(items) - 1, 1)
        return TaskScore(
            task=task,
            metric=self._metrics[task],
            value=value,
            stderr=math.sqrt(spread / len(items)),
            higher_is_better=True,
            documents=documents,
            items=items,
        )


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
            evaluation = self._store.studies.by_id(study_id).spec["evaluation"]
            metrics = {task["name"]: task["metric"] or "acc" for task in evaluation["tasks"]}
            if proxy := evaluation.get("proxy"):
                metrics[PROXY] = proxy["kind"]
            self._benches[study_id] = RehearsalBench(metrics, self._rehearsal)
        return self._benches[study_id]

    def facts(self) -> Mapping[str, object]:
        """This process's memory."""
        used, total = memory()
        return {"device_name": REHEARSAL, "memory_used": used, "memory_total": total}


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
