"""What else a study may make the service do: run code, and speak to other machines, as far as its owner allows.

Code is trusted as lm-eval's task files are: whoever may write below a root may run code, and nobody else.
"""

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from evaluation.evaluators.source import module_file
from evaluation.spec import TaskSpec
from merging.errors import InvalidStudy
from search.strategies.proposer.settings import NAME as PROPOSER
from search.study import StudySpec

_PORTS = {"http": 80, "https": 443}


def require_permitted(spec: StudySpec, judge_hosts: Sequence[str]) -> None:
    """See that the study's functions and judges, and whoever proposes its trials, are allowed here.

    Args:
        spec: a study whose folders are confined to the roots.
        judge_hosts: `host` or `host:port`, as `MERGESEARCH_JUDGE_HOSTS` has them.

    Raises:
        InvalidStudy: a function lies elsewhere than in the study's own folder, or an endpoint may not be asked.
    """
    include = spec.evaluation.include_path
    for index, task in enumerate(spec.evaluation.tasks):
        key = f"evaluation.tasks[{index}]"
        if task.kind == "python":
            _require_file(task, f"{key}.function", include)
        if task.kind == "judge":
            _require_host(str(task.url), f"{key}.url", judge_hosts)
    if spec.search.strategy == PROPOSER:
        _require_host(str(spec.search.options["url"]), "search.options.url", judge_hosts)


def _require_file(task: TaskSpec, key: str, include: str | None) -> None:
    # what can be imported besides is the service's own, and no study's to call
    module = str(task.function).partition(":")[0]
    if include is None or module_file(module, Path(include)) is None:
        problem = "has no file in evaluation.include_path, and this service runs no other code"
        name = module.replace(".", "/")
        raise InvalidStudy(key, task.function, problem, f"put {name}.py into that folder, under a permitted root")


def _require_host(url: str, key: str, allowed: Sequence[str]) -> None:
    parts = urlsplit(url)
    host, port = (parts.hostname or "").lower(), parts.port or _PORTS[parts.scheme]
    for entry in allowed:
        # the scheme does not matter to urlsplit here: it only takes host and port apart
        known = urlsplit(f"//{entry}")
        if host == known.hostname and port == (known.port or _PORTS[parts.scheme]):
            return
    remedy = "let the service's owner add it to MERGESEARCH_JUDGE_HOSTS"
    raise InvalidStudy(key, url, "is no endpoint that this service may ask", remedy)
