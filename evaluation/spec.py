"""The `evaluation` section of a study file: which tasks, which documents. No torch here."""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from merging.errors import InvalidStudy

TaskKind = Literal["lm_eval", "text", "python", "judge", "entropy", "matrix_nuclear_norm", "answer_tokens"]
ProxyKind = Literal["entropy", "matrix_nuclear_norm"]
Backend = Literal["transformers", "vllm"]
PROXY = "proxy"
"""The name of the task that `evaluation.proxy` adds."""
PROXY_PROMPTS = 128
"""Most prompts that it reads: it must cost little beside the tasks themselves."""
JUDGE_SCALE = (1.0, 10.0)
"""From which number to which a judge rates unless told otherwise."""
TEXT_METRICS = ("bits_per_byte", "word_perplexity", "byte_perplexity")
_COMMON = ("name", "kind", "weight")
# the keys that each kind needs, and those that it may have
_KEYS: Mapping[TaskKind, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "lm_eval": ((), ("metric", "num_fewshot")),
    "text": (("path",), ("metric",)),
    "python": (("function",), ("path", "higher_is_better")),
    "judge": (("path", "url", "model", "rubric"), ("scale", "max_tokens", "api_key_env")),
    "entropy": (("path",), ()),
    "matrix_nuclear_norm": (("path",), ()),
    "answer_tokens": (("of",), ()),
}
# other secrets of the machine, such as the database's password, must not be had by naming them as the judge's
_KEY_NAME = re.compile(r"[A-Z][A-Z0-9_]*API_KEY")
# stricter than the standard: what readers of URLs take differently could lead elsewhere than it seems
_URL = re.compile(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[!-\[\]-~]*)?")
_PASSWORD = re.compile(r"https?://[^/?#]*@.*", re.DOTALL)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TaskSpec(_Frozen):
    """One task: of lm-eval, or of another kind of evaluator.

    Attributes:
        name: lm-eval's name of the task; of another kind, any name.
        metric: lm-eval's metric name, `name` or `name,filter`; of a `text`, one of `TEXT_METRICS`. None: the first.
        weight: its share in the objective; 0: scored and reported, not optimised.
        num_fewshot: overrides the task's own.
        path: file of documents, `.txt` or `.jsonl`.
        of: the name of the task of lm-eval's whose answers are counted.
        function: `module:function`, called with model, tokenizer and documents; `higher_is_better`: its direction.
        url, model, rubric, scale, max_tokens, api_key_env: the judge, what it judges by, from which number to which,
            how long an answer may be, and the environment variable that holds its key.
    """

    name: str = Field(min_length=1)
    kind: TaskKind = "lm_eval"
    metric: str | None = None
    weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    num_fewshot: Annotated[int, Field(ge=0)] | None = None
    path: Annotated[str, Field(min_length=1)] | None = None
    of: str | None = None
    function: str | None = None
    higher_is_better: bool | None = None
    url: str | None = None
    model: Annotated[str, Field(min_length=1)] | None = None
    rubric: Annotated[str, Field(min_length=1)] | None = None
    scale: tuple[float, float] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    api_key_env: str | None = None

    def check(self, key: str) -> None:
        """See that the keys are those of the task's kind.

        Args:
            key: where the task stands in the study (`evaluation.tasks[0]`).

        Raises:
            InvalidStudy: one is missing, is another kind's, or cannot be.
        """
        needed, optional = _KEYS[self.kind]
        for name in needed:
            if getattr(self, name) is None:
                raise InvalidStudy(f"{key}.{name}", None, f"is missing for a task of kind {self.kind}", "add it")
        allowed = (*_COMMON, *needed, *optional)
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name not in allowed and value is not None:
                problem = f"is no key of a task of kind {self.kind}"
                raise InvalidStudy(f"{key}.{name}", value, problem, f"its keys: {', '.join(allowed)}")
        for name, problem, remedy in _problems(self):
            raise InvalidStudy(f"{key}.{name}", _shown(name, getattr(self, name)), problem, remedy)


class ProxySpec(_Frozen):
    """A label-free evaluator that every new trial is scored on first, on the prompts of the search documents."""

    kind: ProxyKind


class EvaluationSpec(_Frozen):
    """What a candidate is scored on.

    Attributes:
        tasks: in the file also bare names.
        include_path: folder with lm-eval task YAMLs and Python functions of your own.
        documents: most documents taken of each task; None: all.
        holdout: share of those that no search decision reads.
        batch_size: most sequences scored at once; `auto`: as many as memory takes.
        chat_template: prompts go through the model's chat template, as by `lm_eval --apply_chat_template`.
        fewshot_as_multiturn: few-shot examples are turns of the chat; as stock, they are unless it is told otherwise.
        proxy: what is scored before anything else.
        backend: who computes lm-eval's tasks, texts and answers.
        learn_on: what methods that learn are shown: documents of a task's training split where it has one, or always
            search documents.
    """

    tasks: tuple[TaskSpec, ...] = Field(min_length=1)
    include_path: str | None = None
    documents: Annotated[int, Field(ge=2)] | None = None
    holdout: Annotated[float, Field(gt=0, lt=1)] = 0.3
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    chat_template: bool = False
    fewshot_as_multiturn: bool = Field(default_factory=lambda earlier: bool(earlier.get("chat_template")))
    proxy: ProxySpec | None = None
    backend: Backend = "transformers"
    learn_on: Literal["training", "search"] = "training"

    @field_validator("tasks", mode="before")
    @classmethod
    def _bare_names(cls, value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        return [{"name": task} if isinstance(task, str) else task for task in value]

    @model_validator(mode="after")
    def _consistent(self) -> "EvaluationSpec":
        for index, task in enumerate(self.tasks):
            task.check(f"evaluation.tasks[{index}]")
            if task.of is not None and task.of not in {t.name for t in self.tasks if t.kind == "lm_eval"}:
                problem, remedy = "is no task of kind lm_eval of this study", "name one that lets the model generate"
                raise InvalidStudy(f"evaluation.tasks[{index}].of", task.of, problem, remedy)
            if self.proxy is not None and task.name == PROXY:
                problem = "is the name of the task that evaluation.proxy adds"
                raise InvalidStudy(f"evaluation.tasks[{index}].name", PROXY, problem, "give the task another name")
        if self.proxy is not None and all(task.kind != "lm_eval" for task in self.tasks):
            problem = "has nothing to read: prompts are those of tasks of kind lm_eval"
            raise InvalidStudy("evaluation.proxy", self.proxy.kind, problem, "add such a task, or leave the proxy out")
        if self.fewshot_as_multiturn and not self.chat_template:
            key = "evaluation.fewshot_as_multiturn"
            raise InvalidStudy(key, True, "needs a chat template", "set chat_template: true, or leave it out")
        return self

    def placed(self, place: Callable[[str, str], str]) -> "EvaluationSpec":
        """The same section with its folders and files elsewhere, as `StudySpec.placed`."""
        include = self.include_path
        moved = None if include is None else place("evaluation.include_path", include)
        tasks = tuple(
            task.model_copy(update={"path": place(f"evaluation.tasks[{i}].path", task.path)}) if task.path else task
            for i, task in enumerate(self.tasks)
        )
        return self.model_copy(update={"include_path": moved, "tasks": tasks})

    @property
    def most_rows(self) -> int | None:
        """Most sequences scored at once; None: as many as memory takes."""
        return None if self.batch_size == "auto" else self.batch_size


def older(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """The section as plain JSON without what does not decide scores, and without later keys that say nothing new.

    Studies are remembered by a digest of it, also those that were created before these keys.
    """
    silent = {
        "chat_template": False,
        "fewshot_as_multiturn": False,
        "proxy": None,
        "backend": "transformers",
        "learn_on": "training",
    }
    kept = {k: v for k, v in evaluation.items() if k != "batch_size" and not (k in silent and v == silent[k])}
    return kept | {"tasks": [_older_task(task) for task in evaluation["tasks"]]}


def _older_task(task: Mapping[str, Any]) -> dict[str, Any]:
    first = ("name", "metric", "weight", "num_fewshot")
    return {k: v for k, v in task.items() if k in first or (v is not None and (k, v) != ("kind", "lm_eval"))}


def _problems(task: TaskSpec) -> list[tuple[str, str, str]]:
    """What is wrong with the values of a task's keys: (key, problem, remedy), the first counting."""
    found = []
    if task.kind == "text" and task.metric not in (None, *TEXT_METRICS):
        found.append(("metric", "is no metric of a text", f"choose one of {', '.join(TEXT_METRICS)}"))
    if task.function is not None and not _FUNCTION.fullmatch(task.function):
        found.append(("function", "names no function", "write module:function"))
    found += _endpoint_problems(task.url, None)
    if task.scale is not None and not float("-inf") < task.scale[0] < task.scale[1] < float("inf"):
        found.append(("scale", "is no range", "write [low, high] with low < high"))
    return found + _endpoint_problems(None, task.api_key_env)


def require_endpoint(section: str, url: str, api_key_env: str | None) -> None:
    """See that an endpoint is named as it should be, and no secret with it.

    Args:
        section: what has the keys `url` and `api_key_env`.

    Raises:
        InvalidStudy: the URL is none, or holds more than scheme, host and path; the variable may not be read.
    """
    values = {"url": url, "api_key_env": api_key_env}
    for key, problem, remedy in _endpoint_problems(url, api_key_env):
        raise InvalidStudy(f"{section}.{key}", _shown(key, values[key]), problem, remedy)


def _endpoint_problems(url: str | None, api_key_env: str | None) -> list[tuple[str, str, str]]:
    """What is wrong with them, as `_problems`."""
    found = []
    if url is not None and (problem := _url_problem(url)):
        found.append(("url", problem, "write the base URL of the API, such as https://judge.example/v1"))
    if api_key_env is not None and not _KEY_NAME.fullmatch(api_key_env):
        found.append(("api_key_env", "is no name of such a variable", "let it end with API_KEY, in capital letters"))
    return found


def _shown(name: str, value: Any) -> Any:
    """The value of a key as a message may repeat it; None: it may be a secret that was put into the wrong place."""
    if name == "url" and (_PASSWORD.fullmatch(value) or "?" in value):
        return None
    return None if name == "api_key_env" and not _VARIABLE.fullmatch(value) else value


def _url_problem(url: str) -> str | None:
    if _PASSWORD.fullmatch(url):
        return "holds a user or password"
    if "?" in url or "#" in url:
        return "holds more than scheme, host and path"
    try:
        parts = urlsplit(url)
        fits = _URL.fullmatch(url) and parts.hostname and parts.port != 0  # a port that is no number raises
    except ValueError:
        fits = False
    return None if fits else "is no http(s) URL"
