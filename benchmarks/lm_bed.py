"""One model with its tasks in memory, and every way to score it: what the evaluation benchmark runs in turn."""

import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.bare import Bare, make_bare
from benchmarks.build import Times, timed
from benchmarks.lm_fixtures import Size, make_model, make_tasks
from evaluation.live import load_live
from evaluation.result import TaskScore
from evaluation.scorer import Scorer
from evaluation.spec import EvaluationSpec, TaskSpec
from evaluation.suite import Suite
from evaluation.wanted import Wanted

METHODS = {"choice": "loglikelihood", "generation": "generate_until", "rolling": "loglikelihood_rolling"}
METRICS = {"choice": "acc", "generation": "exact_match", "rolling": "bits_per_byte"}
CHANGE = 0.01  # of a weight's spread: a candidate near the last one
DIGITS = 4  # lm-eval prints


@dataclass(frozen=True, slots=True)
class Difference:
    """How two sets of answers differ.

    Attributes:
        largest: of log-likelihoods, or of metrics; 0 for texts.
        changed: chosen options, texts or printed metrics that are not the same.
        answers: how many there are.
        drafts_right: share of texts that are what the candidate before generated.
    """

    largest: float
    changed: int
    answers: int
    drafts_right: float | None = None


class Bed:
    """A model, its tasks, our scorers and lm-eval's.

    Attributes:
        parameters: of the model.
        positions: that the limit computes, of all tasks; known after `warm_up`.
    """

    def __init__(self, folder: Path, size: Size, kinds: Sequence[str], batch: int, own_batch: int | None) -> None:
        """Args: batch: lm-eval's batch size; own_batch: the most sequences of ours, None: automatic."""
        with contextlib.redirect_stderr(io.StringIO()):
            self.parameters = make_model(folder / "model", size)
        make_tasks(folder / "tasks", size.documents)
        self.kinds, self._folder, self._batch, self._own_batch = tuple(kinds), folder, batch, own_batch
        self._model, self._tokenizer = load_live(folder / "model", "cpu")
        tasks = tuple(TaskSpec(name=kind, metric=METRICS[kind]) for kind in kinds)
        # all documents are scored, so the split only has to have two sides
        spec = EvaluationSpec(tasks=tasks, include_path=str(folder / "tasks"), holdout=0.5)
        self._suite = Suite.load(spec, folder, "benchmark")
        self._requests = {task.name: _requests_of(task) for task in self._suite.tasks}
        self._wanted = Wanted("search", {t.name: tuple(range(len(t.documents))) for t in self._suite.tasks}, {})
        self._lm, self._stock = self._fresh_lm(), _stock_lm(self._model, self._tokenizer, batch)
        self._manager = _manager(folder / "tasks")
        self._bare: dict[str, Bare] = {}
        self._answers: dict[str, dict[str, list[Any]]] = {kind: {} for kind in kinds}
        self._scores: dict[str, dict[str, float]] = {}
        self._printed: dict[str, float] | None = None
        self._scorer = self._fresh_scorer()
        self.positions = 0

    def warm_up(self) -> list[Difference]:
        """Show the kept scorers one candidate, the model as it was saved, and prepare the limits.

        Returns:
            The differences between our metrics and what the command line printed for it, if it ran.
        """
        for kind in self.kinds:
            self._answers[kind]["next"] = self._ask(self._lm, kind)
            self._bare[kind] = make_bare(kind, self._model, self._stock, self._requests[kind], self._last("next"))
        self.positions = sum(bare.positions for bare in self._bare.values())
        scores = _values(self._scorer.score(self._wanted)[0])
        return [] if self._printed is None else [_difference_of(scores, self._printed)]

    def change_weights(self) -> None:
        """Another candidate, near the last one, in place."""
        with torch.no_grad():
            for tensor in self._model.parameters():
                if tensor.dim() > 1:
                    tensor.add_(torch.randn_like(tensor), alpha=CHANGE * float(tensor.std()))

    def answer(self, kind: str, mode: str) -> Times:
        """Let a mode answer the requests of one kind of task."""
        if mode == "limit":
            return timed(self._bare[kind].run)
        if mode == "next":
            self._answers[kind]["before"] = self._answers[kind]["next"]

        def ask() -> None:
            lm = self._fresh_lm() if mode == "first" else self._lm if mode == "next" else self._stock
            self._answers[kind][mode] = self._ask(lm, kind)

        return timed(ask)

    def difference(self, kind: str) -> Difference:
        """Between the answers of HFLM and the worse of ours, in the last round."""
        found = self._answers[kind]
        pairs = [_answers_differ(kind, self._requests[kind], found[own], found["HFLM"]) for own in ("first", "next")]
        right = None
        if kind == "generation":
            right = sum(a == b for a, b in zip(found["before"], found["next"], strict=True)) / len(found["next"])
        return Difference(max(p[0] for p in pairs), max(p[1] for p in pairs), pairs[0][2], right)

    def candidate(self, mode: str) -> Times:
        """Score all tasks, metrics included."""

        def score() -> None:
            if mode == "simple_evaluate":
                self._scores[mode] = self._simple_evaluate()
                return
            scorer = self._fresh_scorer() if mode == "first" else self._scorer
            self._scores[mode] = _values(scorer.score(self._wanted)[0])

        return timed(score)

    def metric_difference(self) -> Difference:
        """Between the metrics of `simple_evaluate` and ours, in the last round."""
        found = [_difference_of(self._scores[own], self._scores["simple_evaluate"]) for own in ("first", "next")]
        return max(found, key=lambda each: (each.changed, each.largest))

    def command_line(self) -> Times:
        """lm-eval's command on the saved model; its process's CPU seconds."""
        output = self._folder / "output"
        command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--device", "cpu", "--tasks", ",".join(self.kinds)]
        command += ["--model_args", f"pretrained={self._folder / 'model'},dtype=float32"]
        command += ["--include_path", str(self._folder / "tasks"), "--output_path", str(output)]
        command += ["--batch_size", str(self._batch)]
        variables = {"OMP_NUM_THREADS": str(torch.get_num_threads()), "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
        begin, before = time.perf_counter(), _children_seconds()
        done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr[-2000:])
        (file,) = output.rglob("results_*.json")
        self._printed = _of_results(json.loads(file.read_text())["results"])
        return time.perf_counter() - begin, _children_seconds() - before

    def _fresh_lm(self) -> Any:
        from evaluation.lm.resident import ResidentLM

        return ResidentLM(self._model, self._tokenizer, self._own_batch)

    def _fresh_scorer(self) -> Scorer:
        return Scorer(self._suite, self._model, self._tokenizer, "cpu", self._own_batch)

    def _ask(self, lm: Any, kind: str) -> list[Any]:
        watched = lm.watched(lambda: None) if hasattr(lm, "watched") else contextlib.nullcontext()
        with watched, contextlib.redirect_stderr(io.StringIO()):  # the rolling path draws bars whatever it is told
            answers: list[Any] = getattr(lm, METHODS[kind])(list(self._requests[kind]), disable_tqdm=True)
        return answers

    def _last(self, mode: str) -> dict[str, list[Any]]:
        return {kind: found[mode] for kind, found in self._answers.items() if mode in found}

    def _simple_evaluate(self) -> dict[str, float]:
        from lm_eval import simple_evaluate

        with _silent():
            found = simple_evaluate(model=self._stock, tasks=list(self.kinds), task_manager=self._manager)
        return _of_results(found["results"])


def _requests_of(task: Any) -> list[Any]:
    return [request for doc in task.instances.values() for request in doc]


def _stock_lm(model: Any, tokenizer: Any, batch: int) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch)


def _manager(folder: Path) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder, include_defaults=False)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


def _children_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _of_results(results: dict[str, Any]) -> dict[str, float]:
    return {kind: float(found[f"{METRICS[kind]},none"]) for kind, found in results.items()}


def _values(scores: Sequence[TaskScore]) -> dict[str, float]:
    return {score.task: score.value for score in scores}


def _difference_of(own: dict[str, float], theirs: dict[str, float]) -> Difference:
    changed = sum(f"{value:.{DIGITS}f}" != f"{theirs[kind]:.{DIGITS}f}" for kind, value in own.items())
    return Difference(max(abs(value - theirs[kind]) for kind, value in own.items()), changed, len(own))


def _answers_differ(kind: str, requests: Sequence[Any], own: Sequence[Any], theirs: Sequence[Any]) -> tuple[Any, ...]:
    """The largest difference, how many answers changed, of how many."""
    if kind == "generation":
        return 0.0, sum(a != b for a, b in zip(own, theirs, strict=True)), len(own)
    if kind == "rolling":
        return max(abs(a - b) for a, b in zip(own, theirs, strict=True)), 0, len(own)
    largest = max(abs(a - b) for (a, _), (b, _) in zip(own, theirs, strict=True))
    ours, stock = _chosen(requests, own), _chosen(requests, theirs)
    greedy = sum(a != b for (_, a), (_, b) in zip(own, theirs, strict=True))
    return largest, greedy + sum(ours[doc] != stock[doc] for doc in stock), len(stock)


def _chosen(requests: Sequence[Any], answers: Sequence[tuple[float, bool]]) -> dict[int, int]:
    """The likeliest option of each document."""
    by_document: dict[int, list[float]] = {}
    for request, (likelihood, _) in zip(requests, answers, strict=True):
        by_document.setdefault(request.doc_id, []).append(likelihood)
    return {doc: max(range(len(found)), key=found.__getitem__) for doc, found in by_document.items()}
