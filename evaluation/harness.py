"""lm-eval's tasks, loaded and built as the stock `lm_eval` command does it. Only this file and `lm.py` import lm_eval.

Importing it takes a second (data sets, pandas), so import it where it is used.
"""

import contextlib
import difflib
import functools
import io
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import lm_eval
import numpy as np
import torch
from lm_eval.api.metrics import _bootstrap_internal, acc_all_stderr, mean_stderr, sample_stddev, stderr_for_metric
from lm_eval.api.registry import AGGREGATION_REGISTRY
from lm_eval.defaults import DEFAULT_OTHER_SEED, DEFAULT_RANDOM_SEED
from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind
from lm_eval.utils import env as _templates

from evaluation.describe import described
from evaluation.fewshot import require_own_examples
from evaluation.spec import EvaluationSpec, TaskSpec
from evaluation.statistics import Aggregation
from merging.errors import InvalidStudy

VERSION: str = lm_eval.__version__
_compiled = functools.lru_cache(maxsize=256)(_templates.from_string)
_CORPUS_METRICS = ("bleu", "chrf", "chrf++", "ter")  # lm-eval bootstraps these 100 times at most


class HarnessTask:
    """One lm-eval task with the metric chosen, its requests built for all of its documents.

    Attributes:
        name: lm-eval's name.
        metric, filter: the metric and the filter it is read through.
        documents: all of the task's documents, in lm-eval's order; the position is the `doc_id`.
        instances: lm-eval's requests by `doc_id`, each list in lm-eval's order.
    """

    def __init__(self, task: Any, spec: TaskSpec, key: str) -> None:
        """Args: key: where the task stands in the study (`evaluation.tasks[0]`)."""
        self.name = spec.name
        self.documents: Sequence[Any] = list(task.eval_docs)
        self._task = task
        self.metric, self.filter = _choose_metric(task, spec, key)
        self.aggregation = _aggregation(task.aggregation()[self.metric])
        self.higher_is_better = _direction(task, self.metric, key)
        self.instances = _build(task, spec, key)

    @property
    def shown_metric(self) -> str:
        """lm-eval's name of the metric, with its filter if that is not `none`."""
        return self.metric if self.filter == "none" else f"{self.metric},{self.filter}"

    @property
    def config(self) -> dict[str, Any]:
        """lm-eval's description of the task, functions by their source, without what differs between machines."""
        # lm-eval's own dump gives nested functions, and those without source, by their address
        config: dict[str, Any] = described(self._task.config.to_dict(keep_callable=True))
        config.pop("dataset_kwargs", None)
        (config.get("metadata") or {}).pop("config_source", None)
        return config

    def items(self, doc_ids: Sequence[int]) -> list[Any]:
        """What the metric gives for each document, from the responses that now stand in its requests."""
        # filters see all requests of a task at once, and only those that were answered
        self._task._instances = [request for doc_id in doc_ids for request in self.instances[doc_id]]
        self._task.apply_filters()
        with _compiled_once():
            return [self._item(doc_id) for doc_id in doc_ids]

    def _item(self, doc_id: int) -> Any:
        requests = sorted(self.instances[doc_id], key=lambda request: request.idx)
        responses = [request.filtered_resps[self.filter] for request in requests]
        results = self._task.process_results(self.documents[doc_id], responses)
        if self.metric not in results:
            raise InvalidStudy(
                f"evaluation.tasks.{self.name}.metric",
                self.metric,
                f"has no value for document {doc_id}",
                "choose a metric that every document has",
            )
        return results[self.metric]

    def stderr(self, items: Sequence[Any], iterations: int) -> float | None:
        """lm-eval's standard error; None where it gives none.

        Args:
            iterations: draws where lm-eval bootstraps (median, f1, mcc, perplexity, bleu ...); 0: none there.
        """
        draws = min(iterations, 100) if self.metric in _CORPUS_METRICS else iterations
        function = stderr_for_metric(self.aggregation.function, bootstrap_iters=1)
        if function is None or len(items) < 2:
            return None
        if function in (mean_stderr, acc_all_stderr):
            return float(function(items))
        if draws == 0:
            return None
        # lm-eval's own bootstrap starts a process pool, which a pool's worker may not, and prints; same draws here
        chunk = min(1000, draws)
        replicate = _bootstrap_internal(self.aggregation.function, chunk)
        return float(sample_stddev([value for i in range(draws // chunk) for value in replicate((i, items))]))


def load_tasks(spec: EvaluationSpec, root: Path) -> list[HarnessTask]:
    """Load the tasks of a study and build their requests.

    Args:
        root: what `include_path` is relative to.

    Raises:
        InvalidStudy: a folder, task, metric or filter is unknown; a task is named twice, is a group, or cannot be
            loaded or used.
    """
    folder = _include_folder(spec, root)
    with _stock_seeds(), _quiet(), _compiled_once():
        manager = _manager_for(spec, folder)
        tasks = []
        for i, task_spec in enumerate(spec.tasks):
            key = f"evaluation.tasks[{i}]"
            if task_spec.name in [other.name for other in spec.tasks[:i]]:
                raise InvalidStudy(
                    f"{key}.name", task_spec.name, "is named twice", "name each task once, with one metric"
                )
            _require_task(manager, task_spec.name, f"{key}.name")
            tasks.append(HarnessTask(_load(manager, task_spec.name, f"{key}.name"), task_spec, key))
        return tasks


def _include_folder(spec: EvaluationSpec, root: Path) -> Path | None:
    if spec.include_path is None:
        return None
    folder = (root / spec.include_path).resolve()
    if not folder.is_dir():
        raise InvalidStudy(
            "evaluation.include_path", spec.include_path, "is not a folder", f"create {folder} or name another"
        )
    return folder


def _manager_for(spec: EvaluationSpec, folder: Path | None) -> TaskManager:
    """An index that has all named tasks, if there is one; lm-eval's own tasks take 6 s to index, so only if needed."""
    if folder is not None:
        manager = TaskManager(include_path=folder, include_defaults=False)
        if all(task.name in manager.task_index for task in spec.tasks):
            return manager
    return TaskManager(include_path=folder)


def _require_task(manager: TaskManager, name: str, key: str) -> None:
    entry = manager.task_index.get(name)
    if entry is None:
        near = difflib.get_close_matches(name, manager.all_subtasks, n=5, cutoff=0.5)
        known = near or manager.all_subtasks[:10]
        raise InvalidStudy(key, name, "is no lm-eval task", f"did you mean {_listed(known)}?")
    if entry.kind in (Kind.GROUP, Kind.TAG):
        members = entry.tags if entry.kind is Kind.TAG else _members(entry.cfg or {})
        raise InvalidStudy(key, name, "is a group of tasks", f"name its tasks instead: {_listed(sorted(members))}")


def _members(config: dict[str, Any]) -> list[str]:
    tasks = config.get("task") or []
    return [t if isinstance(t, str) else str(t.get("task") or t.get("group")) for t in tasks]


def _listed(names: Sequence[str], most: int = 20) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _load(manager: TaskManager, name: str, key: str) -> Any:
    try:
        (task,) = manager.load([name])["tasks"].values()
    except Exception as error:  # a task file runs user code, so anything can come out of it
        raise InvalidStudy(
            key, name, f"cannot be loaded ({_cause(error)})", "mend the task or fetch its data first"
        ) from error
    if getattr(task, "UNSAFE_CODE", False):
        raise InvalidStudy(key, name, "runs code that a model wrote", "choose a task that does not")
    if getattr(task, "MULTIMODAL", False):
        raise InvalidStudy(key, name, "needs images or sound", "choose a text task")
    return task


def _cause(error: BaseException) -> str:
    """What lies at the bottom of an error; the wrappers of `datasets` say little."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"


def _choose_metric(task: Any, spec: TaskSpec, key: str) -> tuple[str, str]:
    """The metric and the filter asked for; by default the first of each that the task declares."""
    metrics = list(task.aggregation())
    filters = [ensemble.name for ensemble in task._filters]
    asked, _, asked_filter = (spec.metric or metrics[0]).partition(",")
    if asked not in metrics or (asked_filter or filters[0]) not in filters:
        named = [m if f == "none" else f"{m},{f}" for m in metrics for f in filters]
        raise InvalidStudy(
            f"{key}.metric", spec.metric, f"is no metric of {spec.name}", f"choose one of {_listed(named)}"
        )
    return asked, asked_filter or filters[0]


def _aggregation(function: Any) -> Aggregation:
    names = {id(known): name for name, known in AGGREGATION_REGISTRY.items()}
    return Aggregation(names.get(id(function), getattr(function, "__name__", "custom")), function)


def _direction(task: Any, metric: str, key: str) -> bool:
    higher = task.higher_is_better().get(metric)
    if higher is None:
        raise InvalidStudy(
            f"{key}.metric", metric, "does not say whether higher is better", "add higher_is_better to the task's YAML"
        )
    return bool(higher)


def _build(task: Any, spec: TaskSpec, key: str) -> dict[int, list[Any]]:
    """Requests of all documents: few-shot examples are drawn in sequence, so a subset would get other prompts."""
    own = task.get_config("num_fewshot")
    if spec.num_fewshot is not None and own == 0 and spec.num_fewshot > 0:
        # lm-eval ignores the override here; a study should not believe it was heard
        raise InvalidStudy(f"{key}.num_fewshot", spec.num_fewshot, "is fixed at 0 by the task", "leave it out")
    shots = (own if spec.num_fewshot is None else spec.num_fewshot) or 0
    require_own_examples(task, spec, shots, key)
    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    try:
        task.build_all_requests()
    except Exception as error:  # templates and samplers are the user's
        raise InvalidStudy(
            f"{key}.name", spec.name, f"cannot build its prompts ({_cause(error)})", "mend it or its num_fewshot"
        ) from error
    instances: dict[int, list[Any]] = {}
    for request in task.instances:
        instances.setdefault(request.doc_id, []).append(request)
    return instances


@contextlib.contextmanager
def _stock_seeds() -> Iterator[None]:
    """The random state `lm_eval` starts a run with; ours comes back afterwards."""
    states = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(DEFAULT_RANDOM_SEED)
        np.random.seed(DEFAULT_OTHER_SEED)
        torch.manual_seed(DEFAULT_OTHER_SEED)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextlib.contextmanager
def _compiled_once() -> Iterator[None]:
    """lm-eval compiles a template anew for every document, which takes longer than scoring a small model."""
    own = _templates.from_string
    _templates.from_string = _compiled
    try:
        yield
    finally:
        _templates.from_string = own


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars: lm-eval draws one while it builds requests and offers no switch for it."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        if shown:
            datasets.enable_progress_bars()
