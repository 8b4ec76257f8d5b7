"""lm-eval's tasks found by name and loaded, the user's own folder first.

Importing it takes a second (data sets, pandas), so import it where it is used.
"""

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.tasks import TaskManager
from lm_eval.tasks._index import Kind

from evaluation.chat import Chat
from evaluation.evaluators.contract import Evaluator
from evaluation.evaluators.lengths import answer_tokens
from evaluation.evaluators.load import load_evaluator
from evaluation.harness import HarnessTask, cause_of, listed
from evaluation.spec import EvaluationSpec
from evaluation.stock import compiled_once, quiet, stock_seeds
from merging.errors import InvalidStudy


def load_tasks(spec: EvaluationSpec, root: Path, chat: Chat | None = None) -> list[HarnessTask | Evaluator]:
    """Load the tasks of a study, and build the requests of lm-eval's.

    Args:
        root: what `include_path` and the tasks' files are relative to.
        chat: what prompts go through.

    Raises:
        InvalidStudy: a folder, task, file, metric or filter is unknown; a task is named twice, is a group, or cannot
            be loaded or used.
    """
    folder = _include_folder(spec, root)
    _require_names(spec)
    tasks: dict[str, HarnessTask | Evaluator] = {}
    # whoever counts another task's answers comes after it
    ordered = sorted(enumerate(spec.tasks), key=lambda each: each[1].of is not None)
    with stock_seeds(), quiet(), compiled_once():
        manager = _manager_for(folder, [task.name for task in spec.tasks if task.kind == "lm_eval"])
        for i, task in ordered:
            key = f"evaluation.tasks[{i}]"
            if task.of is not None:
                tasks[task.name] = answer_tokens(task, key, tasks[task.of])
            elif manager is not None and task.kind == "lm_eval":
                _require_task(manager, task.name, f"{key}.name")
                tasks[task.name] = HarnessTask(_load(manager, task.name, f"{key}.name"), task, key, chat)
            else:
                tasks[task.name] = load_evaluator(task, root, key, folder, None if chat is None else chat.render)
    return [tasks[task.name] for task in spec.tasks]


def _require_names(spec: EvaluationSpec) -> None:
    names = [task.name for task in spec.tasks]
    for i, name in enumerate(names):
        if name in names[:i]:
            key, remedy = f"evaluation.tasks[{i}].name", "name each task once, with one metric"
            raise InvalidStudy(key, name, "is named twice", remedy)


def _include_folder(spec: EvaluationSpec, root: Path) -> Path | None:
    if spec.include_path is None:
        return None
    folder = (root / spec.include_path).resolve()
    if not folder.is_dir():
        raise InvalidStudy(
            "evaluation.include_path", spec.include_path, "is not a folder", f"create {folder} or name another"
        )
    return folder


def _manager_for(folder: Path | None, names: Sequence[str]) -> TaskManager | None:
    """An index that has all these tasks, if there is one; lm-eval's own tasks take 6 s to index, so only if needed."""
    if not names:
        return None
    if folder is not None:
        manager = TaskManager(include_path=folder, include_defaults=False)
        if all(name in manager.task_index for name in names):
            return manager
    return TaskManager(include_path=folder)


def _require_task(manager: TaskManager, name: str, key: str) -> None:
    entry = manager.task_index.get(name)
    if entry is None:
        near = difflib.get_close_matches(name, manager.all_subtasks, n=5, cutoff=0.5)
        known = near or manager.all_subtasks[:10]
        raise InvalidStudy(key, name, "is no lm-eval task", f"did you mean {listed(known)}?")
    if entry.kind in (Kind.GROUP, Kind.TAG):
        members = entry.tags if entry.kind is Kind.TAG else _members(entry.cfg or {})
        raise InvalidStudy(key, name, "is a group of tasks", f"name its tasks instead: {listed(sorted(members))}")


def _members(config: dict[str, Any]) -> list[str]:
    tasks = config.get("task") or []
    return [t if isinstance(t, str) else str(t.get("task") or t.get("group")) for t in tasks]


def _load(manager: TaskManager, name: str, key: str) -> Any:
    try:
        (task,) = manager.load([name])["tasks"].values()
    except Exception as error:  # a task file runs user code, so anything can come out of it
        raise InvalidStudy(
            key, name, f"cannot be loaded ({cause_of(error)})", "mend the task or fetch its data first"
        ) from error
    if getattr(task, "UNSAFE_CODE", False):
        raise InvalidStudy(key, name, "runs code that a model wrote", "choose a task that does not")
    if getattr(task, "MULTIMODAL", False):
        raise InvalidStudy(key, name, "needs images or sound", "choose a text task")
    return task
