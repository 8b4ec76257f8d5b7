"""Tasks made of functions: their digest is the same in every process and changes with the functions' source."""

import functools
import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from evaluation.describe import described
from evaluation.scorer import Scorer
from evaluation.spec import EvaluationSpec, TaskSpec
from evaluation.suite import Suite
from tests.evaluation.conftest import BATCH, KEY, Tiny

FUNCTIONS = """\
import functools

from lm_eval.api.samplers import ContextSampler


def documents(dataset):
    return dataset.select(range(len(dataset) - 5))


def examples(dataset):
    return dataset.select(range(10))


def text(doc):
    return doc["question"]


def target(doc):
    return doc["label"]


def choices(doc):
    return doc["choices"]


def results(doc, answers):
    likelihoods = [answer[0] for answer in answers]
    return {"hit": likelihoods.index(max(likelihoods)) == doc["label"]}


def _share(items, of):
    return sum(item == of for item in items) / len(items)


share = functools.partial(_share, of=True)


class LastOnes(ContextSampler):
    def sample(self, n, eval_doc=None, df=None, **kwargs):
        return self.df[-n:]
"""
TASK = """\
task: coded
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}/choices.jsonl, train: {data}/choices.jsonl}}
test_split: test
num_fewshot: 1
output_type: multiple_choice
process_docs: !function functions.documents
doc_to_text: !function functions.text
doc_to_target: !function functions.target
doc_to_choice: !function functions.choices
process_results: !function functions.results
fewshot_config:
  split: train
  sampler: !function functions.LastOnes
  process_docs: !function functions.examples
  doc_to_text: !function functions.text
  doc_to_target: !function functions.target
  doc_to_choice: !function functions.choices
metric_list:
  - metric: hit
    aggregation: !function functions.share
    higher_is_better: true
metadata: {{version: 1.0}}
"""
SPEC = EvaluationSpec(tasks=(TaskSpec(name="coded"),), include_path="tasks", batch_size=BATCH)
DIGEST = """\
import sys
from pathlib import Path
from evaluation.suite import Suite
from tests.evaluation.test_describe import KEY, SPEC
print(Suite.load(SPEC, Path(sys.argv[1]), KEY).digest)
"""


def _coded(tiny: Tiny, root: Path, source: str = FUNCTIONS) -> Path:
    """A folder with a task that has a function wherever lm-eval takes one."""
    tasks = root / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "functions.py").write_text(source)
    (tasks / "coded.yaml").write_text(TASK.format(data=tiny.root / "tasks"))
    return root


def test_a_task_of_functions_has_one_digest_in_all_processes_and_can_be_scored(
    tiny: Tiny, tmp_path: Path, live: tuple[Any, Any]
) -> None:
    root = _coded(tiny, tmp_path)
    started = [
        subprocess.Popen(
            [sys.executable, "-c", DIGEST, str(root)],
            env=tiny.environment | {"PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            text=True,
        )
        for seed in ("1", "2")
    ]
    suite = Suite.load(SPEC, root, KEY)
    scores, _ = Scorer(suite, *live, "cpu", BATCH).score(suite.wanted("search"))
    assert [process.communicate(timeout=100)[0].strip() for process in started] == [suite.digest] * 2
    assert 0 < scores[0].value < 1 and len(suite.tasks[0].documents) == 55


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('== doc["label"]}', '== int(doc["label"])}'),
        ("item == of for", "item is of for"),
        ("of=True", "of=False"),
        ("return self.df[-n:]", "return list(self.df[-n:])"),
        ("range(10)", "range(0, 10)"),
    ],
)
def test_another_source_is_another_digest(tiny: Tiny, tmp_path: Path, old: str, new: str) -> None:
    first = Suite.load(SPEC, _coded(tiny, tmp_path / "one"), KEY).digest
    assert Suite.load(SPEC, _coded(tiny, tmp_path / "same"), KEY).digest == first
    assert old in FUNCTIONS
    other = _coded(tiny, tmp_path / "other", FUNCTIONS.replace(old, new))
    assert Suite.load(SPEC, other, KEY).digest != first


class Counter:
    """Can be called, and holds something."""

    def __init__(self, start: int) -> None:
        self.start = start
        self.me = self

    def __call__(self) -> int:
        return self.start

    def next(self) -> int:
        return self.start + 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, 0.5, None, True, ("x",)], 2: {}}, {"a": [1, 0.5, None, True, ["x"]], "2": {}}),
        ({"c", "a", "b"}, ["a", "b", "c"]),
        (date(2024, 2, 1), "2024-02-01"),
        (Path("a/b"), "a/b"),
        (object(), "<object object>"),
        (len, "builtins.len"),
        (dict.fromkeys, "builtins.dict.fromkeys"),
        (functools.partial(max, 1, key=len), {"partial": ["builtins.max", [1], {"key": "builtins.len"}]}),
    ],
)
def test_values_become_plain(value: Any, expected: Any) -> None:
    assert described(value) == expected
    assert json.loads(json.dumps(described(value))) == expected


def test_functions_go_by_source_wherever_they_lie() -> None:
    def inner() -> int:
        return 41

    text = json.dumps(described({"a": [{"b": inner}, functools.partial(inner)]}))
    assert text.count("return 41") == 2 and "0x" not in text


def test_objects_that_can_be_called_go_by_their_class_and_what_they_hold() -> None:
    assert described(Counter(1)) == described(Counter(1)) != described(Counter(2))
    assert described(Counter(1).next) == described(Counter(1).next) != described(Counter(2).next)
    assert "class Counter" in json.dumps(described(Counter(1)))
    assert "0x" not in json.dumps(described([Counter(1), Counter(1).next]))
