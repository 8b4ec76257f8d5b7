"""From a task of a study file to its evaluator, for all kinds but lm-eval's own."""

from collections.abc import Sequence
from pathlib import Path

from evaluation.evaluators.contract import Evaluator, Render
from evaluation.spec import PROXY, ProxySpec, TaskSpec


def load_evaluator(
    spec: TaskSpec, root: Path, key: str, include: Path | None = None, render: Render | None = None
) -> Evaluator:
    """The evaluator of a task whose kind is not `lm_eval`, its documents read.

    Args:
        root: what the task's `path` is relative to.
        key: where the task stands in the study (`evaluation.tasks[0]`).
        include: the folder `evaluation.include_path`, where Python functions are looked for first.
        render: makes a prompt of a chat by the model's chat template; None: prompts stay as they are.

    Raises:
        InvalidStudy: a file or a function cannot be used.
    """
    if spec.kind == "text":
        from evaluation.evaluators.text import load_text

        return load_text(spec, root, key)
    if spec.kind == "python":
        from evaluation.evaluators.function import load_function

        return load_function(spec, root, key, include)
    if spec.kind == "judge":
        from evaluation.evaluators.judge import load_judge

        return load_judge(spec, root, key, render)
    if spec.kind in ("entropy", "matrix_nuclear_norm"):
        from evaluation.evaluators.proxies import load_proxy_task

        return load_proxy_task(spec, root, key)
    raise ValueError(f"{spec.kind} is no kind of evaluator")


def proxy_evaluator(spec: ProxySpec, prompts: Sequence[str]) -> Evaluator:
    """The evaluator of `evaluation.proxy`; its name is `PROXY`.

    Args:
        prompts: prompts of search documents, never of others: the `doc_id`s are their positions, and all belong to
            the part `search`.
    """
    from evaluation.evaluators.proxies import Proxy

    return Proxy(PROXY, spec.kind, list(prompts), last=1)  # the place where the answer would begin
