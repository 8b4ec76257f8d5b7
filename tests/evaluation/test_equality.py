"""The promise: our scores are those of the stock `lm_eval` command on the same folder."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from evaluation.result import TaskScore
from evaluation.scorer import Scorer
from evaluation.suite import Suite
from tests.evaluation.conftest import BATCH, KEY, TYPICAL, Tiny

ZERO_SHOT = tuple(name for name in TYPICAL if name != "tiny_shots")
METRICS = {
    "tiny_generate": ["exact_match"],
    "tiny_shots": ["exact_match"],
    "tiny_filters": ["exact_match,strict", "exact_match,last"],
    "tiny_choice": ["acc", "acc_norm"],
    "tiny_text": ["bits_per_byte", "word_perplexity"],
}


@pytest.fixture(scope="module")
def suites(tiny: Tiny) -> list[Suite]:
    """The typical tasks with their first metric, and with their second where they have one."""
    specs = [[{"name": n, "metric": METRICS[n][min(i, len(METRICS[n]) - 1)]} for n in TYPICAL] for i in (0, 1)]
    spec = tiny.spec()
    return [Suite.load(type(spec).model_validate(spec.model_dump() | {"tasks": t}), tiny.root, KEY) for t in specs]


@pytest.fixture(scope="module")
def stock(tiny: Tiny, suites: list[Suite]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the command prints for all documents, and for our search documents of the zero-shot tasks."""
    samples = {name: list(suites[0].documents(name, "search")) for name in ZERO_SHOT}
    (tiny.root / "samples.json").write_text(json.dumps(samples))
    with ThreadPoolExecutor(2) as both:
        full = both.submit(_stock, tiny, TYPICAL, tiny.root / "full")
        part = both.submit(_stock, tiny, ZERO_SHOT, tiny.root / "part", "--samples", str(tiny.root / "samples.json"))
        return full.result(), part.result()


def _stock(tiny: Tiny, tasks: tuple[str, ...], output: Path, *more: str) -> dict[str, Any]:
    command = f"{sys.executable} -m lm_eval --model hf --model_args pretrained={tiny.model},dtype=float32 --device cpu"
    paths = ["--include_path", str(tiny.root / "tasks"), "--output_path", str(output)]
    asked = ["--tasks", ",".join(tasks), "--batch_size", str(BATCH), *paths, *more]
    done = subprocess.run([*command.split(), *asked], env=tiny.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    (result,) = output.rglob("results_*.json")
    results: dict[str, Any] = json.loads(result.read_text())["results"]
    return results


def _key(score: TaskScore) -> str:
    return score.metric if "," in score.metric else f"{score.metric},none"


def _stderr_key(score: TaskScore) -> str:
    metric, filter_name = _key(score).split(",")
    return f"{metric}_stderr,{filter_name}"


def test_search_scores_equal_the_command_on_the_same_documents_bit_for_bit(
    suites: list[Suite], stock: tuple[dict[str, Any], dict[str, Any]], live: tuple[Any, Any], tiny: Tiny
) -> None:
    _, results = stock
    for suite in suites:
        # the few-shot task shares no batch with the command's run, so it is left out here too
        kept = tuple(task for task in suite.tasks if task.name in ZERO_SHOT)
        scores, _ = Scorer(Suite(kept, suite.splits, suite.digest), *live, "cpu", BATCH).score("search")
        for score in scores:
            assert score.value == results[score.task][_key(score)], score.metric
            expected = results[score.task][_stderr_key(score)]
            assert score.stderr == (None if expected == "N/A" else expected)


def test_both_parts_together_equal_the_command_on_all_documents(
    suites: list[Suite], stock: tuple[dict[str, Any], dict[str, Any]], live: tuple[Any, Any]
) -> None:
    results, _ = stock
    for suite in suites:
        scorer = Scorer(suite, *live, "cpu", BATCH)
        search, holdout = ({s.task: s for s in scorer.score(part)[0]} for part in ("search", "holdout"))
        for task in suite.tasks:
            one, other = search[task.name], holdout[task.name]
            items = dict(zip(one.documents + other.documents, one.items + other.items, strict=True))
            assert sorted(items) == list(range(60))
            value = task.aggregation.function([items[i] for i in sorted(items)])
            expected = results[task.name][_key(one)]
            if task.name == "tiny_text":  # other batches, so sums of floats in another order
                assert value == pytest.approx(expected, rel=1e-6)
                assert f"{value:.4f}" == f"{expected:.4f}"
            else:
                assert value == expected


def test_the_tasks_tell_models_apart(stock: tuple[dict[str, Any], dict[str, Any]]) -> None:
    # a comparison of zeros would prove nothing
    results, _ = stock
    accuracies = [results["tiny_generate"]["exact_match,none"], results["tiny_choice"]["acc,none"]]
    accuracies += [results["tiny_filters"]["exact_match,last"], results["tiny_shots"]["exact_match,none"]]
    assert all(0.05 < accuracy < 0.99 for accuracy in accuracies), accuracies


def test_metrics_that_lm_eval_bootstraps_equal_its_own_evaluate(
    tiny: Tiny, live: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # perplexity, f1, brier_score: the command would draw 100,000 resamples (minutes), `evaluate` takes the number
    from lm_eval.evaluator import evaluate

    from evaluation.lm import ResidentLM

    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    spec = tiny.spec("tiny_likely", "tiny_f1", "tiny_brier")
    suite = Suite.load(spec, tiny.root, KEY)
    scores, _ = Scorer(suite, *live, "cpu", BATCH, bootstrap=50).score("search")
    tasks = {"tasks": {task.name: task._task for task in suite.tasks}}
    samples = {task.name: list(suite.documents(task.name, "search")) for task in suite.tasks}
    results = evaluate(ResidentLM(*live, BATCH), tasks, samples=samples, bootstrap_iters=50)["results"]
    for score in scores:
        assert score.value == results[score.task][_key(score)]
        expected = results[score.task][_stderr_key(score)]
        assert score.stderr == (None if expected == "N/A" else expected)
