"""Scores one live model on a suite, as the stock `lm_eval` command would score it from a folder."""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from evaluation.errors import NonFiniteScore, TaskBroken
from evaluation.evaluators.contract import Subject
from evaluation.meter import Meter, Progress
from evaluation.result import TaskScore
from evaluation.suite import Suite
from evaluation.wanted import Wanted
from merging.errors import MergesearchError

if TYPE_CHECKING:
    from evaluation.evaluators.lengths import AnswerTokens
    from evaluation.gates.look import Look, Looker
    from evaluation.harness import HarnessTask
    from evaluation.suite import Task

Items = Mapping[int, Any]
"""What a task's metric gave for its documents, by `doc_id`, as JSON has it."""


class Scorer:
    """A live model and what it is scored on. Its weights may change between calls, its shape may not.

    Args:
        model: a Hugging Face causal language model in evaluation mode.
        device: where it lies.
        batch_size: most sequences scored at once; part of what makes scores repeat bit for bit. None: as many as
            memory takes.
        bootstrap: draws where lm-eval bootstraps a standard error (f1, mcc, median, perplexity, bleu ...); 0: those
            have none. Stock draws 100,000, which for f1 takes minutes: the statistics module does better in less.
        lm: what answers instead of the model itself (vLLM's engine, which holds the same weights).
    """

    def __init__(
        self,
        suite: Suite,
        model: Any,
        tokenizer: Any,
        device: str,
        batch_size: int | None,
        bootstrap: int = 0,
        lm: Any = None,
    ) -> None:
        from evaluation.lm.resident import ResidentLM

        if model.device.type != device.partition(":")[0]:
            raise ValueError(f"the model lies on {model.device}, not on {device}")
        self._suite = suite
        self._model, self._tokenizer, self._device = model, tokenizer, device
        self._lm = ResidentLM(model, tokenizer, batch_size) if lm is None else lm
        self._bootstrap = bootstrap
        self._counted, self._counting = 0, False
        self._looker: Looker | None = None

    @property
    def tokens(self) -> int:
        """The positions the model computed so far, of the scoring that goes on."""
        return self._counted + (self._lm.tokens if self._counting else 0)

    def score(self, wanted: Wanted, on_progress: Progress | None = None) -> tuple[tuple[TaskScore, ...], int]:
        """Score the model as it is now on what is missing, and join it with what is known.

        Args:
            on_progress: called several times a second; documents done are those known and the share answered.

        Returns:
            One score a task that is wanted, in the suite's order, and the positions the model computed (input,
            padding, generated).

        Raises:
            NonFiniteScore: a metric has no finite value (a perplexity out of bounds).
            TaskBroken: the code of a task, or of another evaluator, raised.
            MemoryError: not even one sequence fits; another attempt may succeed.
            OSError: something outside is away (a judge); another attempt may succeed.
        """
        tasks = [task for task in self._suite.tasks if task.name in wanted.documents]
        meter = Meter(wanted.reused, sum(map(len, wanted.documents.values())), on_progress)
        self._counted = 0
        with _short_of_memory():
            found = self._found({task.name: task for task in tasks}, wanted.missing, meter)
        meter.finish()
        return tuple(self._task_score(task, wanted, found.get(task.name, {})) for task in tasks), self.tokens

    def look(self, beat: Callable[[], None]) -> "Look":
        """How the model as it is now reads and answers: a short look, before it is worth scoring.

        Args:
            beat: called before every forward pass; what it raises ends the look.

        Raises:
            MemoryError: not even one sequence fits; another attempt may succeed.
        """
        from evaluation.gates.look import Looker

        self._looker = self._looker or Looker(self._suite, self._lm, self._tokenizer)
        with _short_of_memory(), self._lm.watched(beat):
            return self._looker.look()

    def _found(
        self, tasks: "Mapping[str, Task]", missing: Mapping[str, Sequence[int]], meter: Meter
    ) -> dict[str, Items]:
        """The items of the missing documents: lm-eval's tasks, and who counts their answers, together, then others."""
        from evaluation.evaluators.lengths import AnswerTokens
        from evaluation.harness import HarnessTask

        asked = [(task, missing[name]) for name, task in tasks.items() if name in missing]
        harness = [(task, doc_ids) for task, doc_ids in asked if isinstance(task, HarnessTask)]
        counted = [(task, doc_ids) for task, doc_ids in asked if isinstance(task, AnswerTokens)]
        found = self._of_harness(harness, counted, meter)
        for task, doc_ids in asked:
            if not isinstance(task, HarnessTask | AnswerTokens):
                meter.begin(len(doc_ids), len(doc_ids))
                subject = self._subject(meter)
                with self._watched(meter.beat), _named(task.name, meter, (OSError,)):
                    items = task.answer(doc_ids, subject)
                    found[task.name] = {i: plain(item) for i, item in zip(doc_ids, items, strict=True)}
        return found

    def _subject(self, meter: Meter) -> Subject:
        return Subject(self._lm, self._model, self._tokenizer, self._device, meter.beat)

    def _of_harness(
        self,
        asked: "Sequence[tuple[HarnessTask, Sequence[int]]]",
        counted: "Sequence[tuple[AnswerTokens, Sequence[int]]]",
        meter: Meter,
    ) -> dict[str, Items]:
        """The items of lm-eval's tasks, and of those who count their answers: each request is answered once."""
        wanted: dict[HarnessTask, set[int]] = {}
        for source, doc_ids in (*asked, *((task.source, doc_ids) for task, doc_ids in counted)):
            wanted.setdefault(source, set()).update(doc_ids)
        requests = [request for task, ids in wanted.items() for i in sorted(ids) for request in task.instances[i]]
        try:
            self._respond(requests, sum(len(doc_ids) for _, doc_ids in (*asked, *counted)), meter)
            subject = self._subject(meter)
            read = [(task.name, doc_ids, partial(task.items, doc_ids)) for task, doc_ids in asked]
            read += [(task.name, doc_ids, partial(task.answer, doc_ids, subject)) for task, doc_ids in counted]
            found: dict[str, Items] = {}
            for name, doc_ids, items in read:
                with _named(name, meter):
                    found[name] = {i: plain(item) for i, item in zip(doc_ids, items(), strict=True)}
            return found
        finally:
            for request in requests:
                request.resps, request.filtered_resps = [], {}

    def _respond(self, requests: Sequence[Any], documents: int, meter: Meter) -> None:
        """Let the model answer; requests of one type go together, as in lm-eval's `evaluate`."""
        by_type: dict[str, list[Any]] = {}
        for request in requests:
            by_type.setdefault(request.request_type, []).extend([request] * request.repeats)
        meter.begin(documents, sum(map(len, by_type.values())))
        done = 0
        for kind, asked in by_type.items():
            with self._watched(partial(self._beat, meter, done, len(asked))):
                for request, response in zip(asked, getattr(self._lm, kind)(asked, disable_tqdm=True), strict=True):
                    request.resps.append(response)
            done += len(asked)

    def _beat(self, meter: Meter, done: int, most: int) -> None:
        meter.beat(done + min(self._lm.answered, most))

    @contextlib.contextmanager
    def _watched(self, beat: Callable[[], None]) -> Iterator[None]:
        """Beat before every forward pass, and count its positions."""
        with self._lm.watched(beat):
            self._counting = True
            try:
                yield
            finally:
                self._counting = False
                self._counted += self._lm.tokens

    def _task_score(self, task: "Task", wanted: Wanted, found: Items) -> TaskScore:
        doc_ids = wanted.documents[task.name]
        every = {**wanted.known.get(task.name, {}), **found}
        items = [every[doc_id] for doc_id in doc_ids]
        with _named(task.name):
            try:
                value = float(task.aggregation.function(items))
            except OverflowError:
                value = math.inf
            if not math.isfinite(value):
                raise NonFiniteScore(task.name, task.shown_metric)
            stderr = task.stderr(items, self._bootstrap)
        return TaskScore(
            task=task.name,
            metric=task.shown_metric,
            value=value,
            stderr=stderr,
            higher_is_better=task.higher_is_better,
            documents=doc_ids,
            items=tuple(items),
        )


@contextlib.contextmanager
def _short_of_memory() -> Iterator[None]:
    """One error for memory that ran out, wherever it did."""
    from evaluation.lm.budget import out_of_memory

    try:
        yield
    except RuntimeError as error:
        if out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise


@contextlib.contextmanager
def _named(task: str, meter: Meter | None = None, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Gives what a task's code raises the task's name.

    Args:
        passing: errors that stay what they are, beside those of ours, of the memory and of the device.
    """
    import torch

    from evaluation.lm.budget import out_of_memory

    try:
        yield
    except Exception as error:
        if meter is not None and meter.stopped is not None:
            raise meter.stopped from None  # a user's code may have made something else of it
        if out_of_memory(error) or isinstance(error, (MergesearchError, torch.AcceleratorError, *passing)):
            raise
        raise TaskBroken(task, f"{type(error).__name__}: {error}") from error


def plain(item: Any) -> Any:
    """An item as JSON gives it back: lists for tuples and arrays, Python's numbers for numpy's.

    Raises:
        TypeError: JSON has nothing for it.
    """
    if hasattr(item, "tolist"):  # a numpy scalar or array, a tensor
        return plain(item.tolist())
    if isinstance(item, Mapping):
        return {str(key): plain(value) for key, value in item.items()}
    if isinstance(item, (list, tuple)):
        return [plain(value) for value in item]
    if item is None or isinstance(item, (bool, int, float, str)):
        return item
    raise TypeError(f"the metric gave a {type(item).__name__}, which cannot be kept; use numbers, text and lists")
