"""Scores one live model on a suite, as the stock `lm_eval` command would score it from a folder."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from evaluation.result import Part, TaskScore
from evaluation.suite import Suite
from merging.errors import MergesearchError

Progress = Callable[[int, int], None]
"""Called with the documents done and their total; it may raise to end the scoring."""

_PROGRESS_SECONDS = 0.25


class NonFiniteScore(MergesearchError):
    """A candidate's metric came out as NaN or infinity: a result of a trial, not a fault."""

    def __init__(self, task: str, metric: str) -> None:
        self.task, self.metric = task, metric
        super().__init__(f"the candidate scores NaN or infinity on {metric} of task {task}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.task, self.metric)


class Scorer:
    """A live model and what it is scored on. Its weights may change between calls, its shape may not.

    Args:
        model: a Hugging Face causal language model in evaluation mode.
        device: where it lies.
        batch_size: sequences scored at once; part of what makes scores repeat bit for bit.
        bootstrap: draws where lm-eval bootstraps a standard error (f1, mcc, median, perplexity, bleu ...); 0: those
            have none. Stock draws 100,000, which for f1 takes minutes: the statistics module does better in less.
    """

    def __init__(
        self, suite: Suite, model: Any, tokenizer: Any, device: str, batch_size: int, bootstrap: int = 0
    ) -> None:
        from evaluation.lm import ResidentLM

        if model.device.type != device.partition(":")[0]:
            raise ValueError(f"the model lies on {model.device}, not on {device}")
        self._suite = suite
        self._lm = ResidentLM(model, tokenizer, batch_size)
        self._bootstrap = bootstrap

    @property
    def tokens(self) -> int:
        """The positions the model computed so far, of the scoring that goes on."""
        return self._lm.tokens

    def score(self, part: Part, on_progress: Progress | None = None) -> tuple[tuple[TaskScore, ...], int]:
        """Score the model as it is now.

        Args:
            on_progress: called several times a second; documents done are the share of requests answered.

        Returns:
            One score a task, in the suite's order, and the positions the model computed (input, padding, generated).

        Raises:
            NonFiniteScore: a metric has no finite value (a perplexity out of bounds).
        """
        doc_ids = {task.name: self._suite.documents(task.name, part) for task in self._suite.tasks}
        requests = [r for task in self._suite.tasks for i in doc_ids[task.name] for r in task.instances[i]]
        try:
            self._respond(requests, sum(map(len, doc_ids.values())), on_progress)
            return tuple(self._task_score(task, doc_ids[task.name]) for task in self._suite.tasks), self._lm.tokens
        finally:
            for request in requests:
                request.resps, request.filtered_resps = [], {}

    def _respond(self, requests: Sequence[Any], documents: int, on_progress: Progress | None) -> None:
        """Let the model answer; requests of one type go together, as in lm-eval's `evaluate`."""
        by_type: dict[str, list[Any]] = {}
        for request in requests:
            by_type.setdefault(request.request_type, []).extend([request] * request.repeats)
        meter = _Meter(documents, sum(map(len, by_type.values())), on_progress)
        with self._lm.watched(lambda: meter.beat(self._lm.answered)):
            for kind, asked in by_type.items():
                meter.begin(len(asked), self._lm.answered)
                for request, response in zip(asked, getattr(self._lm, kind)(asked, disable_tqdm=True), strict=True):
                    request.resps.append(response)
        meter.finish()

    def _task_score(self, task: Any, doc_ids: tuple[int, ...]) -> TaskScore:
        items = task.items(doc_ids)
        try:
            value = float(task.aggregation.function(items))
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise NonFiniteScore(task.name, task.shown_metric)
        return TaskScore(
            task=task.name,
            metric=task.shown_metric,
            value=value,
            stderr=task.stderr(items, self._bootstrap),
            higher_is_better=task.higher_is_better,
            documents=doc_ids,
            items=tuple(plain(item) for item in items),
        )


class _Meter:
    """Turns answered requests into documents done, and limits how often that is told."""

    def __init__(self, documents: int, requests: int, on_progress: Progress | None) -> None:
        self._documents, self._requests, self._tell = documents, requests, on_progress
        self._before = self._of_type = self._offset = 0
        self._told = time.monotonic()

    def begin(self, requests: int, answered: int) -> None:
        """The next type of requests begins."""
        self._before, self._of_type, self._offset = self._before + self._of_type, requests, answered

    def beat(self, answered: int) -> None:
        if self._tell is None or time.monotonic() - self._told < _PROGRESS_SECONDS:
            return
        self._told = time.monotonic()
        done = self._before + min(answered - self._offset, self._of_type)
        self._tell(self._documents * done // self._requests, self._documents)

    def finish(self) -> None:
        if self._tell is not None:
            self._tell(self._documents, self._documents)


def plain(item: Any) -> Any:
    """An item as JSON gives it back: lists for tuples and arrays, Python's numbers for numpy's."""
    if hasattr(item, "tolist"):  # a numpy scalar or array, a tensor
        return item.tolist()
    if isinstance(item, Mapping):
        return {str(key): plain(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [plain(value) for value in item]
    return item
