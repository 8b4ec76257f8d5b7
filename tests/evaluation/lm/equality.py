"""What both sides of the promise answer: stock `HFLM` and ours, on the same requests, down to the metrics."""

import contextlib
import json
import math
import random
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.spec import EvaluationSpec, TaskSpec
from evaluation.suite import Suite
from tests.evaluation.conftest import Tiny
from tests.evaluation.tiny import FOLLOWS, WORDS

PAIRS = {
    "tiny_generate": ("exact_match", "exact_match"),
    "tiny_shots": ("exact_match", "exact_match"),
    "tiny_filters": ("exact_match,strict", "exact_match,last"),
    "tiny_choice": ("acc", "acc_norm"),
    "tiny_text": ("bits_per_byte", "word_perplexity"),
    "tiny_likely": ("perplexity", "acc"),
    "tiny_f1": ("f1", "acc_norm"),
    "tiny_brier": ("brier_score", "acc_norm"),
    "own_single": ("acc", "acc_norm"),
    "own_shots": ("acc", "acc_norm"),
    "own_long": ("acc", "acc_norm"),
}
"""Two metrics of each task: together every metric that the tiny tasks have."""

_CHOICE = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/{name}.jsonl
    train: {folder}/{name}.jsonl
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
{more}"""


def write_own_tasks(folder: Path, documents: int = 24) -> Path:
    """Choices of one token (some twice), few-shot choices, and contexts longer than the tiny model's window."""
    rng = random.Random(3)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in PAIRS if name.startswith("own")}
    for _ in range(documents):
        first, second = rng.sample(WORDS, 2)
        single = [FOLLOWS[first], *rng.choices(WORDS, k=3)]
        mixed = [
            f"{FOLLOWS[first]} {FOLLOWS[second]}",
            FOLLOWS[first],
            *(" ".join(rng.choices(WORDS, k=3)) for _ in "ab"),
        ]
        asked = f"Q {first} {second} A"
        past = " ".join(rng.choices(WORDS, k=rng.randint(30, 60)))
        rows["own_single"].append({"question": asked, "choices": single, "label": 0})
        rows["own_shots"].append({"question": asked, "choices": mixed, "label": 0})
        rows["own_long"].append({"question": f"{past} {asked}", "choices": mixed, "label": 0})
    folder.mkdir(parents=True)
    for name, found in rows.items():
        more = "num_fewshot: 2\nfewshot_split: train\n" if name == "own_shots" else ""
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
        (folder / f"{name}.yaml").write_text(_CHOICE.format(name=name, folder=folder, more=more))
    return folder


def load_suites(folder: Path, pairs: Mapping[str, tuple[str, str]]) -> tuple[Suite, Suite]:
    """The tasks with their first metric, and with their second."""

    def load(which: int) -> Suite:
        tasks = tuple(TaskSpec(name=name, metric=metrics[which]) for name, metrics in pairs.items())
        return Suite.load(EvaluationSpec(tasks=tasks, include_path=str(folder)), folder, "equality")

    return load(0), load(1)


def every_task(tiny: Tiny, folder: Path, pairs: Mapping[str, tuple[str, str]] = PAIRS) -> tuple[Suite, Suite]:
    """The tiny tasks and these tests' own, written to a new folder: with their first metric, and with their second."""
    write_own_tasks(folder)
    for path in (tiny.root / "tasks").glob("*.yaml"):
        (folder / path.name).write_text(path.read_text())
    return load_suites(folder, pairs)


@dataclass(frozen=True)
class Answered:
    """What one model answered.

    Attributes:
        responses: by type of request, in the suite's order.
        values: of every task and metric.
    """

    responses: dict[str, list[Any]]
    values: dict[tuple[str, str], float]

    @property
    def likelihoods(self) -> list[float]:
        """All log-likelihoods, of continuations and of whole texts."""
        return [pair[0] for pair in self.responses.get("loglikelihood", [])] + self.responses.get(
            "loglikelihood_rolling", []
        )

    @property
    def decisions(self) -> list[Any]:
        """What leaves no room for small differences: texts, and whether a continuation is what the model would say."""
        return [*self.responses.get("generate_until", []), *(p[1] for p in self.responses.get("loglikelihood", []))]


def answer(lm: Any, suites: Sequence[Suite], most: int | None = None) -> Answered:
    """Let a model answer the first suite's requests, and make metrics of the answers for all suites.

    Args:
        suites: of the same tasks.
        most: documents of each task; None: all.
    """
    responses: dict[str, list[Any]] = {}
    with lm.watched(lambda: None) if hasattr(lm, "watched") else contextlib.nullcontext():
        for kind, requests in _by_type(suites[0], most).items():
            responses[kind] = getattr(lm, kind)(requests, disable_tqdm=True)
    values: dict[tuple[str, str], float] = {}
    for suite in suites:
        with _filled(suite, responses, most), warnings.catch_warnings(action="ignore"):  # of an f1 without positives
            for task in suite.tasks:
                items = task.items(_documents(task, most))  # type: ignore[union-attr]
                values[task.name, task.shown_metric] = float(task.aggregation.function(items))
    assert all(map(math.isfinite, values.values()))
    return Answered(responses, values)


def _documents(task: Any, most: int | None) -> range:
    return range(len(task.documents) if most is None else min(most, len(task.documents)))


def _by_type(suite: Suite, most: int | None) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for task in suite.tasks:
        for i in _documents(task, most):
            for request in task.instances[i]:  # type: ignore[union-attr]
                found.setdefault(request.request_type, []).append(request)
    return found


@contextlib.contextmanager
def _filled(suite: Suite, responses: dict[str, list[Any]], most: int | None) -> Iterator[None]:
    requests = _by_type(suite, most)
    for kind, asked in requests.items():
        for request, response in zip(asked, responses[kind], strict=True):
            request.resps = [response]
    try:
        yield
    finally:
        for request in (request for asked in requests.values() for request in asked):
            request.resps, request.filtered_resps = [], {}


def stock_lm(model: Any, tokenizer: Any, batch_size: int) -> Any:
    """lm-eval's own."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size)


def own_lm(model: Any, tokenizer: Any, batch_size: int | None) -> Any:
    """Ours."""
    from evaluation.lm.resident import ResidentLM

    return ResidentLM(model, tokenizer, batch_size)


def unlike(one: Answered, other: Answered) -> list[tuple[tuple[str, str], float, float]]:
    """The metrics that lm-eval would print with other digits.

    A number on the edge between two digits may be rounded to either, and a perplexity is the exponential of what
    was computed: a large one has more digits than float32 can tell apart.
    """
    return [(key, a, other.values[key]) for key, a in one.values.items() if not _alike(key[1], a, other.values[key])]


def _alike(metric: str, one: float, other: float) -> bool:
    tolerance = 1e-5 if "perplexity" in metric else 1e-6
    return f"{one:.4f}" == f"{other:.4f}" or math.isclose(one, other, rel_tol=tolerance)


def largest(one: Answered, other: Answered) -> float:
    """The largest difference of log-likelihoods, in nats."""
    return max(abs(a - b) for a, b in zip(one.likelihoods, other.likelihoods, strict=True))


def changed(one: Answered, other: Answered) -> int:
    """How many decisions differ."""
    return sum(a != b for a, b in zip(one.decisions, other.decisions, strict=True))


def choices(answered: Answered, suite: Suite, most: int | None) -> list[dict[str, float]]:
    """Of every multiple-choice document the likelihood of each continuation."""
    requests = _by_type(suite, most).get("loglikelihood", [])
    found: dict[tuple[str, int], dict[str, float]] = {}
    for request, (value, _) in zip(requests, answered.responses.get("loglikelihood", []), strict=True):
        found.setdefault((request.task_name, request.doc_id), {})[request.args[1]] = value
    return list(found.values())
