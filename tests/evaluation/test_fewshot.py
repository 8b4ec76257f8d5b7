"""Few-shot examples drawn from the scored documents are refused: they would show the holdout with its answers."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from evaluation.fewshot import require_own_examples
from evaluation.spec import EvaluationSpec, TaskSpec
from evaluation.suite import Suite
from merging.errors import InvalidStudy
from tests.evaluation.conftest import KEY, Tiny, harness
from tests.evaluation.tiny import EXACT, GENERATE

HEAD = """\
task: shown
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}/questions.jsonl, train: {data}/shots.jsonl}}
metadata: {{version: 1.0}}
"""
LISTED = 'fewshot_config: {samples: [{question: "Q ba be A", answer: "fi fo"}]}\n'
PROBLEM = "would show holdout documents in the prompts: its few-shot examples come from the scored documents"
REMEDY = "set num_fewshot: 0, or give the task a fewshot_split of its own"


def _load(tiny: Tiny, root: Path, splits: str, shots: int | None) -> Suite:
    (root / "tasks").mkdir()
    text = HEAD.format(data=tiny.root / "tasks") + GENERATE + EXACT + splits
    (root / "tasks" / "shown.yaml").write_text(text)
    task = TaskSpec(name="shown", num_fewshot=shots)
    return Suite.load(EvaluationSpec(tasks=(task,), include_path="tasks"), root, KEY)


@pytest.mark.parametrize(
    ("splits", "shots", "key"),
    [
        ("test_split: test\n", 2, "num_fewshot: 2"),
        ("validation_split: test\n", 2, "num_fewshot: 2"),
        ("test_split: test\nnum_fewshot: 1\n", None, "name: 'shown'"),
        ("test_split: test\nnum_fewshot: 1\nfewshot_split: test\n", None, "name: 'shown'"),
        ("validation_split: test\ntraining_split: train\nfewshot_split: test\n", 1, "num_fewshot: 1"),
        ("test_split: test\nfewshot_config: {split: test}\n", 1, "num_fewshot: 1"),
        ("test_split: test\nfewshot_split: test\n" + LISTED, 1, "num_fewshot: 1"),  # lm-eval prefers the split
    ],
)
def test_examples_from_the_scored_documents_are_refused(
    tiny: Tiny, tmp_path: Path, splits: str, shots: int | None, key: str
) -> None:
    with pytest.raises(InvalidStudy) as refused:
        _load(tiny, tmp_path, splits, shots)
    assert str(refused.value) == f"evaluation.tasks[0].{key} {PROBLEM}; {REMEDY}"


@pytest.mark.parametrize(
    ("splits", "shots"),
    [
        ("test_split: test\n", None),
        ("test_split: test\nnum_fewshot: 1\n", 0),
        ("test_split: test\nfewshot_split: train\n", 1),
        ("test_split: test\ntraining_split: train\n", 1),
        ("test_split: test\nvalidation_split: train\n", 1),
        ("test_split: test\n" + LISTED, 1),
    ],
)
def test_examples_of_their_own_are_welcome(tiny: Tiny, tmp_path: Path, splits: str, shots: int | None) -> None:
    task = harness(_load(tiny, tmp_path, splits, shots), "shown")
    assert {task.instances[i][0].args[0].count("A") for i in task.instances} == {1 + (shots or 0)}


@pytest.mark.parametrize(("has", "refused"), [("training", False), ("validation", False), ("", True)])
def test_tasks_written_as_a_class_are_told_by_what_they_have(has: str, refused: bool) -> None:
    methods: dict[str, Any] = {
        f"has_{kind}_docs": lambda kind=kind: kind in (has, "test") for kind in ("training", "validation", "test")
    }
    task = SimpleNamespace(config=SimpleNamespace(test_split=None), **methods)
    with pytest.raises(InvalidStudy, match="'old' would show") if refused else nullcontext():
        require_own_examples(task, TaskSpec(name="old"), 3, "evaluation.tasks[0]")
