"""Where a task's few-shot examples come from: those drawn from the scored documents would give the holdout away."""

from typing import Any

from evaluation.spec import TaskSpec
from merging.errors import InvalidStudy


def require_own_examples(task: Any, spec: TaskSpec, shots: int, key: str) -> None:
    """Refuse a task that shows its scored documents, answers included, in the prompts of others.

    Args:
        task: lm-eval's task.
        shots: examples a prompt.
        key: where the task stands in the study (`evaluation.tasks[0]`).

    Raises:
        InvalidStudy: it does.
    """
    if shots == 0 or _examples_split(task) != _scored_split(task):
        return
    setting, value = ("num_fewshot", spec.num_fewshot) if spec.num_fewshot else ("name", spec.name)
    raise InvalidStudy(
        f"{key}.{setting}",
        value,
        "would show holdout documents in the prompts: its few-shot examples come from the scored documents",
        "set num_fewshot: 0, or give the task a fewshot_split of its own",
    )


def _scored_split(task: Any) -> str:
    return _name(task, "test" if task.has_test_docs() else "validation")


def _examples_split(task: Any) -> str | None:
    """The split lm-eval draws examples from, by its order of preference; None: the task brings a list of its own."""
    config = getattr(task, "fewshot_cfg", None)  # tasks written as a class of old have none
    if config is not None and config.split is not None:
        return str(config.split)
    if config is not None and config.samples is not None:
        return None
    if task.has_training_docs():
        return _name(task, "training")
    return _name(task, "validation" if task.has_validation_docs() else "test")


def _name(task: Any, kind: str) -> str:
    """The data set's name of a kind of split; a task written as a class may have none for it."""
    return str(getattr(task.config, f"{kind}_split", None) or kind)
