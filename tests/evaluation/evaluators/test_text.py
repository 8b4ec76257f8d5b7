"""A user's own text scores as lm-eval's rolling task over the same documents does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evaluation.evaluators.contract import Subject
from evaluation.evaluators.load import load_evaluator
from evaluation.scorer import Scorer
from evaluation.spec import TEXT_METRICS, TaskSpec
from evaluation.suite import Suite
from merging.errors import InvalidStudy
from tests.evaluation.conftest import BATCH, KEY, Tiny

PATH = "tasks/texts.jsonl"


@pytest.mark.parametrize("metric", ["bits_per_byte", "word_perplexity"])
def test_it_scores_as_lm_eval_s_task_over_the_same_documents(tiny: Tiny, live: tuple[Any, Any], metric: str) -> None:
    mine = TaskSpec(name="mine", kind="text", path=PATH, metric=metric)
    suite = Suite.load(tiny.spec(TaskSpec(name="tiny_text", metric=metric), mine), tiny.root, KEY)
    scores, _ = Scorer(suite, *live, "cpu", BATCH).score(suite.wanted("search"))
    theirs, own = scores
    assert own.value == theirs.value and own.items == theirs.items and own.documents == theirs.documents
    assert (own.metric, own.stderr, own.higher_is_better) == (theirs.metric, theirs.stderr, theirs.higher_is_better)


def test_byte_perplexity_is_two_to_the_bits_per_byte(tiny: Tiny, subject_of: Callable[..., Subject]) -> None:
    values = {}
    for metric in TEXT_METRICS:
        task = load_evaluator(TaskSpec(name="m", kind="text", path=PATH, metric=metric), tiny.root, "key")
        values[metric] = task.aggregation.function(task.answer(range(5), subject_of()))
    assert values["byte_perplexity"] == pytest.approx(2 ** values["bits_per_byte"])


def test_a_text_file_is_scored_by_its_paragraphs(tmp_path: Path, subject_of: Callable[..., Subject]) -> None:
    parts = ["ba be bi bo " * 20, "da de di do " * 20]
    (tmp_path / "notes.txt").write_text("\n\n".join(parts))
    task = load_evaluator(TaskSpec(name="notes", kind="text", path="notes.txt"), tmp_path, "key")
    assert [d["text"] for d in task.documents] == parts and task.shown_metric == "bits_per_byte"
    done: list[int] = []
    items = task.answer([1, 0], subject_of(done.append))
    assert done[-1] == 2 and items == task.answer([1], subject_of()) + task.answer([0], subject_of())


def test_its_file_is_named_when_it_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match=r"^evaluation.tasks\[3\].path: 'no.txt' cannot be read"):
        load_evaluator(TaskSpec(name="n", kind="text", path="no.txt"), tmp_path, "evaluation.tasks[3]")
