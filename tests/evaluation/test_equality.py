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
from evaluation.wanted import Wanted
from tests.evaluation.conftest import BATCH, KEY, TYPICAL, Tiny, harness
from tests.evaluation.tiny import write_chat

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


def _same(ours: float | None, theirs: Any) -> None:
    """Equal to the printed digit; counts exactly. Other batches add up floats in another order."""
    if theirs == "N/A":
        assert ours is None
        return
    assert ours == pytest.approx(theirs, rel=1e-5) and f"{ours:.4f}" == f"{theirs:.4f}"


def test_search_scores_equal_the_command_on_the_same_documents(
    suites: list[Suite], stock: tuple[dict[str, Any], dict[str, Any]], live: tuple[Any, Any]
) -> None:
    _, results = stock
    for suite in suites:
        # the command gives another few-shot prompt to a document if it is not given all of them
        wanted = Wanted("search", {name: suite.documents(name, "search") for name in ZERO_SHOT}, {})
        scores, _ = Scorer(suite, *live, "cpu", BATCH).score(wanted)
        assert [score.task for score in scores] == [name for name in TYPICAL if name in ZERO_SHOT]
        for score in scores:
            _same(score.value, results[score.task][_key(score)])
            _same(score.stderr, results[score.task][_stderr_key(score)])


def test_both_parts_together_equal_the_command_on_all_documents(
    suites: list[Suite], stock: tuple[dict[str, Any], dict[str, Any]], live: tuple[Any, Any]
) -> None:
    results, _ = stock
    for suite in suites:
        scorer = Scorer(suite, *live, "cpu", BATCH)
        search, holdout = ({s.task: s for s in scorer.score(suite.wanted(part))[0]} for part in ("search", "holdout"))
        for task in suite.tasks:
            one, other = search[task.name], holdout[task.name]
            items = dict(zip(one.documents + other.documents, one.items + other.items, strict=True))
            assert sorted(items) == list(range(60))
            value = task.aggregation.function([items[i] for i in sorted(items)])
            _same(value, results[task.name][_key(one)])


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

    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    spec = tiny.spec("tiny_likely", "tiny_f1", "tiny_brier")
    suite = Suite.load(spec, tiny.root, KEY)
    scores, _ = Scorer(suite, *live, "cpu", BATCH, bootstrap=50).score(suite.wanted("search"))
    tasks = {"tasks": {task.name: _of_lm_eval(task) for task in suite.tasks}}
    samples = {task.name: list(suite.documents(task.name, "search")) for task in suite.tasks}
    results = evaluate(_stock_lm(*live), tasks, samples=samples, bootstrap_iters=50)["results"]
    for score in scores:
        _same(score.value, results[score.task][_key(score)])
        _same(score.stderr, results[score.task][_stderr_key(score)])


@pytest.mark.parametrize("multiturn", [False, True])
def test_a_chat_template_gives_the_prompts_and_scores_of_the_command(
    tiny: Tiny, tmp_path: Path, live: tuple[Any, Any], multiturn: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    tokenizer = write_chat(live[1], tmp_path / "chat")
    tasks = ("tiny_generate", "tiny_shots", "tiny_choice")
    spec = tiny.spec(*tasks, chat_template=True, fewshot_as_multiturn=multiturn)
    suite = Suite.load(spec, tiny.root, KEY, tmp_path / "chat")
    every = Wanted("search", {name: tuple(range(60)) for name in tasks}, {})
    scores, _ = Scorer(suite, live[0], tokenizer, "cpu", BATCH).score(every)
    result = simple_evaluate(
        _stock_lm(live[0], tokenizer),
        tasks=list(tasks),
        task_manager=TaskManager(include_path=tiny.root / "tasks", include_defaults=False),
        apply_chat_template=True,
        fewshot_as_multiturn=multiturn,
        bootstrap_iters=0,
    )
    for score in scores:
        _same(score.value, result["results"][score.task][_key(score)])
    prompts = {s["doc_id"]: s["arguments"][0][0] for s in result["samples"]["tiny_shots"]}
    ours = {i: r[0].args[0] for i, r in harness(suite, "tiny_shots").instances.items()}
    assert prompts == ours and all(text.startswith("<s> Q ") for text in ours.values())
    assert {text.count("A") for text in ours.values()} == {6 if multiturn else 4}


def _of_lm_eval(task: Any) -> Any:
    return task._task


def _stock_lm(model: Any, tokenizer: Any) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH)
