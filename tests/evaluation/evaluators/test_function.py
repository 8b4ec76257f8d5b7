"""A user's Python function as a task: where it is found, what it is given, and what it may not give."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from evaluation.errors import TaskBroken
from evaluation.evaluators.contract import Evaluator, Subject
from evaluation.evaluators.load import load_evaluator
from evaluation.evaluators.source import module_file
from evaluation.scorer import Scorer
from evaluation.spec import TaskSpec
from evaluation.suite import Suite
from merging.errors import InvalidStudy
from tests.evaluation.conftest import BATCH, KEY, Tiny

WORDS = """\
import torch

documents = [{"text": "ba be"}, {"text": "bi bo da"}]
calls = []

def count(model, tokenizer, documents):
    assert not model.training and not torch.is_grad_enabled()
    calls.append(len(documents))
    return [len(tokenizer(d["text"]).input_ids) for d in documents]

def tensor(model, tokenizer, documents):
    return torch.ones(len(documents))

def forward(model, tokenizer, documents):
    try:
        return [float(model(torch.tensor([[8, 9]])).logits.mean()) for _ in documents]
    except Exception as error:
        raise RuntimeError("mine") from error

def eager(model, tokenizer, documents):
    while documents:
        document = documents.pop(0)
        seen = document.setdefault("seen", 0)
        document["seen"] += 1
        assert not torch.is_grad_enabled()
        yield seen

def exits(model, tokenizer, documents):
    raise SystemExit(3)

def ended(model, tokenizer, documents):
    raise SystemExit(-241)

def crowded(model, tokenizer, documents):
    raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

def short(model, tokenizer, documents):
    return [1.0]

def words(model, tokenizer, documents):
    return ["many"] * len(documents)

def broken(model, tokenizer, documents):
    raise FileNotFoundError("gone")

def full(model, tokenizer, documents):
    raise torch.OutOfMemoryError("no room")
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Like `evaluation.include_path`, with the module `mine` in it."""
    (tmp_path / "mine.py").write_text(WORDS)
    return tmp_path


def load(folder: Path, function: str, path: str | None = None, **keys: Any) -> Evaluator:
    spec = TaskSpec(name="own", kind="python", function=function, path=path, **keys)
    return load_evaluator(spec, folder, "evaluation.tasks[0]", folder)


def test_it_is_called_with_model_tokenizer_and_documents(folder: Path, subject_of: Callable[..., Subject]) -> None:
    task = load(folder, "mine:count")
    assert list(task.documents) == [{"text": "ba be"}, {"text": "bi bo da"}]
    assert task.answer([1, 0], subject_of()) == [3.0, 2.0]
    assert (task.shown_metric, task.aggregation.name, task.stderr([3.0, 2.0], 0)) == ("count", "mean", 0.5)
    assert task.higher_is_better and not load(folder, "mine:count", higher_is_better=False).higher_is_better
    assert load(folder, "mine:tensor").answer([0, 1], subject_of()) == [1.0, 1.0]


def test_documents_of_a_file_are_given_share_by_share(folder: Path, subject_of: Callable[..., Subject]) -> None:
    (folder / "rows.jsonl").write_text("".join(json.dumps({"text": "ba " * n}) + "\n" for n in range(1, 151)))
    task = load(folder, "mine:count", "rows.jsonl")
    done: list[int] = []
    assert task.answer(range(150), subject_of(done.append)) == [float(n) for n in range(1, 151)]
    assert done == [64, 128, 150]


def test_its_source_is_part_of_the_digest(folder: Path) -> None:
    first = load(folder, "mine:count").config
    assert load(folder, "mine:count").config == first
    (folder / "mine.py").write_text(WORDS.replace("return [1.0]", "return [2.0]"))
    assert load(folder, "mine:count").config != first


def test_so_is_that_of_what_its_module_imports(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (folder / "mine.py").write_text(f"import function_helper\n{WORDS}")
    found = []
    for number in ("1.0", "2.0"):
        (tmp_path / "function_helper.py").write_text(f"number = {number}\n")
        for _ in range(2):  # a process runs what it has loaded, whatever became of the file
            found.append(load(folder, "mine:count").config)
            (tmp_path / "function_helper.py").write_text("number = 3.0\n")
        sys.modules.pop("function_helper")  # as in another process
    assert found[0] == found[1] != found[2] == found[3]


def test_the_folder_comes_before_the_import_path(folder: Path, subject_of: Callable[..., Subject]) -> None:
    (folder / "statistics.py").write_text(WORDS)
    assert load(folder, "statistics:count").answer([0], subject_of()) == [2.0]
    (folder / "a").mkdir()
    (folder / "a" / "b.py").write_text(WORDS)
    assert module_file("a.b", folder) == folder / "a" / "b.py" and module_file("a", folder) is None
    assert load(folder, "a.b:count").config["function"] == "a.b:count"
    (folder / "rows.jsonl").write_text("{}\n")
    assert load(folder, "operator:length_hint", "rows.jsonl").config["source"]


BAD = [
    ("mine:gone", None, "evaluation.tasks[0].function: 'mine:gone' is no function; define gone in"),
    ("mine:calls", None, "is no function"),
    ("no_such_module:f", None, "cannot be loaded (ModuleNotFoundError: "),
    ("wrong:f", None, "cannot be loaded (SyntaxError: "),
    ("social:f", None, "social.py: it cannot import its neighbours, so let it hold all it needs"),
    ("leaves:f", None, "cannot be loaded (SystemExit: 3)"),
    ("bare:f", None, "has no documents; name a .jsonl file in `path`, or define `documents` beside it"),
    ("empty:f", None, "brings no documents"),
    ("odd:f", None, "brings documents that cannot be used (TypeError: "),
    ("half:f", None, "brings documents that cannot be used (UnicodeEncodeError: "),
    ("quits:f", None, "brings documents that cannot be used (SystemExit: 3)"),
    ("mine:count", "no.jsonl", "evaluation.tasks[0].path: 'no.jsonl' cannot be read"),
]


@pytest.mark.parametrize(("function", "path", "said"), BAD, ids=[said[:40] for *_, said in BAD])
def test_what_cannot_be_called_is_refused(folder: Path, function: str, path: str | None, said: str) -> None:
    define = "def f(m, t, d): return [0]\n"
    sources = {
        "wrong": "def f(:",
        "social": "import bare",
        "leaves": "raise SystemExit(3)",
        "bare": define,
        "empty": define + "documents = []",
        "odd": define + "def documents(): return [object()]",
        "half": define + "documents = [chr(0xd800)]",
        "quits": define + "def documents(): raise SystemExit(3)",
    }
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    with pytest.raises(InvalidStudy) as refused:
        load(folder, function, path)
    assert said in str(refused.value), str(refused.value)


@pytest.mark.parametrize(
    ("function", "said"),
    [
        ("short", "task own broke on the candidate's answers (mine:short gave 1 numbers for 2 documents)"),
        ("words", "mine:words raised ValueError: could not convert"),
        ("broken", "mine:broken raised FileNotFoundError: gone"),
        ("exits", "mine:exits raised SystemExit: 3"),
    ],
)
def test_what_it_may_not_give_is_the_task_s_fault(
    folder: Path, subject_of: Callable[..., Subject], function: str, said: str
) -> None:
    with pytest.raises(TaskBroken) as broken:
        load(folder, f"mine:{function}").answer([0, 1], subject_of())
    assert said in str(broken.value)


def test_a_shortage_of_memory_stays_one(folder: Path, subject_of: Callable[..., Subject]) -> None:
    with pytest.raises(torch.OutOfMemoryError):
        load(folder, "mine:full").answer([0], subject_of())
    with pytest.raises(RuntimeError, match=r"^DefaultCPUAllocator"):  # the scorer knows it
        load(folder, "mine:crowded").answer([0], subject_of())


def test_what_it_does_to_its_documents_reaches_nobody(folder: Path, subject_of: Callable[..., Subject]) -> None:
    task = load(folder, "mine:eager")
    assert [task.answer([0, 1], subject_of()) for _ in range(2)] == [[0.0, 0.0], [0.0, 0.0]]
    assert list(task.documents) == [{"text": "ba be"}, {"text": "bi bo da"}]


def test_a_process_that_a_signal_ends_is_not_held_by_the_function(
    folder: Path, subject_of: Callable[..., Subject]
) -> None:
    with pytest.raises(SystemExit):  # as billiard's handler of SIGTERM raises it, whatever runs at that moment
        load(folder, "mine:ended").answer([0], subject_of())


class Stopped(Exception):
    pass


def test_an_evaluation_that_is_not_wanted_any_more_ends_whatever_the_function_makes_of_it(
    tiny: Tiny, live: tuple[Any, Any], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(done: int, total: int) -> None:
        raise Stopped

    monkeypatch.setattr("evaluation.meter.PROGRESS_SECONDS", 0.0)
    (folder / "rows.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(20)))
    spec = TaskSpec(name="own", kind="python", function="mine:forward", path=str(folder / "rows.jsonl"))
    study = tiny.spec(spec).model_copy(update={"include_path": str(folder)})
    suite = Suite.load(study, tiny.root, KEY)
    with pytest.raises(Stopped):
        Scorer(suite, *live, "cpu", BATCH).score(suite.wanted("search"), stop)
