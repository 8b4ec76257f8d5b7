"""What goes wrong while a model is scored: tasks that raise are named, memory that runs out costs time alone."""

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.errors import TaskBroken
from evaluation.scorer import Scorer
from evaluation.suite import Suite
from merging.errors import MergesearchError
from tests.evaluation.conftest import BATCH, KEY, TYPICAL, Tiny, harness

FUNCTIONS = """\
import os


def results(doc, answers):
    if os.environ.get("BREAK") == "results":
        raise KeyError("no such field")
    return {"hit": {1.0} if os.environ.get("BREAK") == "item" else 1.0}


def share(items):
    if os.environ.get("BREAK") == "share":
        raise ZeroDivisionError("no items")
    if os.environ.get("BREAK") == "memory":
        raise MemoryError("full")
    return sum(items) / len(items)
"""
TASK = """\
task: fragile
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}/questions.jsonl}}}}
test_split: test
output_type: loglikelihood
doc_to_text: "{{{{question}}}}"
doc_to_target: " {{{{answer}}}}"
process_results: !function functions.results
metric_list: [{{metric: hit, aggregation: !function functions.share, higher_is_better: true}}]
metadata: {{version: 1.0}}
"""


@pytest.fixture(scope="module")
def fragile(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Suite:
    root = tmp_path_factory.mktemp("fragile")
    (root / "tasks").mkdir()
    (root / "tasks" / "functions.py").write_text(FUNCTIONS)
    (root / "tasks" / "fragile.yaml").write_text(TASK.format(data=tiny.root / "tasks"))
    return Suite.load(tiny.spec("fragile", documents=12), root, KEY)


@pytest.mark.parametrize(
    ("step", "cause"),
    [
        ("results", "KeyError: 'no such field'"),
        ("share", "ZeroDivisionError: no items"),
        ("item", "TypeError: the metric gave a set, which cannot be kept; use numbers, text and lists"),
    ],
)
def test_a_task_that_raises_is_named(
    fragile: Suite, live: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, step: str, cause: str
) -> None:
    scorer = Scorer(fragile, *live, "cpu", BATCH)
    monkeypatch.setenv("BREAK", step)
    with pytest.raises(TaskBroken) as raised:
        scorer.score(fragile.wanted("search"))
    assert str(raised.value) == f"task fragile broke on the candidate's answers ({cause}); mend it or leave it out"
    assert isinstance(raised.value, MergesearchError)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    monkeypatch.setenv("BREAK", "nothing")
    assert scorer.score(fragile.wanted("search"))[0][0].value == 1.0  # and nothing is left of the broken scoring


def test_memory_that_runs_out_in_a_task_stays_what_it_is(
    fragile: Suite, live: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BREAK", "memory")
    with pytest.raises(MemoryError, match="full"):
        Scorer(fragile, *live, "cpu", BATCH).score(fragile.wanted("search"))


def test_a_filter_that_raises_is_named(tiny: Tiny, live: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    suite = Suite.load(tiny.spec("tiny_choice", "tiny_filters", documents=12), tiny.root, KEY)

    def raising(*args: Any) -> None:
        raise RuntimeError("bad pattern")

    monkeypatch.setattr("lm_eval.filters.extraction.RegexFilter.apply", raising)
    with pytest.raises(TaskBroken, match=r"task tiny_filters broke .*RuntimeError: bad pattern"):
        Scorer(suite, *live, "cpu", BATCH).score(suite.wanted("search"))


@contextmanager
def room_for(model: Any, positions: int, error: Callable[[], BaseException]) -> Iterator[list[int]]:
    """No forward pass of more positions than that; -> those of each that was done."""
    done: list[int] = []

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        size = (args[0] if args else kwargs["input_ids"]).numel()
        if size > positions:
            raise error()
        done.append(size)

    handle = model.register_forward_pre_hook(before, with_kwargs=True)
    try:
        yield done
    finally:
        handle.remove()


@pytest.mark.parametrize("batch_size", [None, BATCH])
def test_a_scoring_that_runs_out_of_memory_ends_with_smaller_batches(
    tiny: Tiny, live: tuple[Any, Any], batch_size: int | None
) -> None:
    suite = Suite.load(tiny.spec(*TYPICAL, "tiny_likely", documents=16), tiny.root, KEY)
    plenty, _ = Scorer(suite, *live, "cpu", batch_size).score(suite.wanted("search"))
    scorer = Scorer(suite, *live, "cpu", batch_size)
    with room_for(live[0], 150, lambda: torch.OutOfMemoryError("CUDA out of memory")) as done:
        scores, _ = scorer.score(suite.wanted("search"))
    assert len(done) > 10 and 75 < max(done) <= 150
    for one, other in zip(scores, plenty, strict=True):
        assert one.value == pytest.approx(other.value, rel=1e-5)


def test_memory_too_small_for_one_row_is_an_error_of_the_machine(tiny: Tiny, live: tuple[Any, Any]) -> None:
    suite = Suite.load(tiny.spec("tiny_choice", documents=12), tiny.root, KEY)
    scorer = Scorer(suite, *live, "cpu", None)
    error = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 10 bytes"
    with room_for(live[0], 1, lambda: RuntimeError(error)), pytest.raises(MemoryError):
        scorer.score(suite.wanted("search"))
    assert scorer.score(suite.wanted("search"))[0][0].documents == suite.documents("tiny_choice", "search")


def test_other_evaluators_are_scored_after_lm_evals_and_told_of_like_them(
    tiny: Tiny, tmp_path: Path, live: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.meter.PROGRESS_SECONDS", 0.0)
    rows = [json.loads(line) for line in (tiny.root / "tasks" / "texts.jsonl").read_text().splitlines()]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row["text"]))
    text = {"name": "own", "kind": "text", "path": str(tmp_path / "own.jsonl")}
    spec = tiny.spec().model_copy(update={"tasks": ()}).model_dump() | {"tasks": [text, "tiny_text"]}
    suite = Suite.load(type(tiny.spec()).model_validate(spec), tiny.root, KEY)
    told: list[int] = []
    scores, tokens = Scorer(suite, *live, "cpu", BATCH).score(suite.wanted("search"), lambda d, _: told.append(d))
    assert [score.task for score in scores] == ["own", "tiny_text"] and tokens > 0
    assert scores[0].value == pytest.approx(scores[1].value, rel=1e-5)  # the same documents, the same metric
    assert scores[0].documents == suite.documents("own", "search")
    assert told == sorted(told) and told[-1] == sum(len(s.documents) for s in scores)


def test_the_proxy_is_a_task_of_search_prompts_alone(tiny: Tiny, live: tuple[Any, Any]) -> None:
    spec = tiny.spec("tiny_generate", documents=20)
    plain = Suite.load(spec, tiny.root, KEY)
    content = spec.model_dump() | {"proxy": {"kind": "entropy"}}
    suite = Suite.load(type(spec).model_validate(content), tiny.root, KEY)
    search = plain.order("tiny_generate", "search")
    prompts = [harness(plain, "tiny_generate").instances[i][0].args[0] for i in search]
    assert [task.name for task in suite.tasks] == ["tiny_generate", "proxy"]
    assert [document["text"] for document in suite.tasks[1].documents] == prompts
    assert suite.documents("proxy", "search") == suite.order("proxy", "search") == tuple(range(len(search)))
    assert suite.documents("proxy", "holdout") == () and "proxy" not in suite.wanted("holdout").documents
    assert suite.digest != plain.digest and suite.task_digests.keys() == {"tiny_generate", "proxy"}
    scores, _ = Scorer(suite, *live, "cpu", BATCH).score(suite.wanted("search"))
    assert scores[1].task == "proxy" and scores[1].value > 0
