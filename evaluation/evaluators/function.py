"""A user's Python function as a task: called with model, tokenizer and documents, it gives one number a document.

Importing it takes seconds (torch, lm-eval), so import it where it is used.
"""

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.errors import TaskBroken
from evaluation.evaluators.contract import Subject
from evaluation.evaluators.documents import read_rows
from evaluation.evaluators.measures import aggregation, mean_error
from evaluation.evaluators.source import Loaded, load_source, require_own
from evaluation.lm.budget import out_of_memory
from evaluation.spec import TaskSpec
from evaluation.split import canonical
from merging.errors import InvalidStudy

_AT_ONCE = 64  # documents a call: so often progress is told, and an evaluation that is not wanted any more ends


class Function:
    """What the function gives, averaged. Satisfies `Evaluator`; an item is a number."""

    def __init__(self, spec: TaskSpec, loaded: Loaded, documents: Sequence[Any]) -> None:
        self.name, self.documents = spec.name, documents
        self._called = str(spec.function)
        self.shown_metric = self._called.partition(":")[2]
        self.higher_is_better = spec.higher_is_better is not False
        self.aggregation = aggregation("mean")
        self.config = {"kind": "python", "function": self._called, "source": loaded.digest}
        self._function = loaded.function

    def stderr(self, items: Sequence[Any], iterations: int) -> float | None:
        """The standard error of the mean."""
        return mean_error(items)

    def answer(self, doc_ids: Sequence[int], subject: Subject) -> list[Any]:
        """As `Evaluator.answer`."""
        items: list[float] = []
        for start in range(0, len(doc_ids), _AT_ONCE):
            asked = [self.documents[i] for i in doc_ids[start : start + _AT_ONCE]]
            items += self._numbers(asked, subject)
            subject.beat(len(items))
        return items

    def _numbers(self, documents: list[Any], subject: Subject) -> list[float]:
        try:
            with torch.no_grad():
                # what it does to its documents may reach no other candidate
                given = self._function(subject.model, subject.tokenizer, copy.deepcopy(documents))
                numbers = [float(number) for number in given]  # here: a generator runs only now
        except (Exception, SystemExit) as error:  # the user's code, so anything can come out of it
            require_own(error)
            if out_of_memory(error) or isinstance(error, torch.AcceleratorError):
                raise  # these are the device's
            raise TaskBroken(self.name, f"{self._called} raised {type(error).__name__}: {error}") from error
        if len(numbers) != len(documents):
            wrong = f"{self._called} gave {len(numbers)} numbers for {len(documents)} documents"
            raise TaskBroken(self.name, wrong)
        return numbers


def load_function(spec: TaskSpec, root: Path, key: str, include: Path | None) -> Function:
    """The evaluator of a task of kind `python`.

    Args:
        include: the folder where its module is looked for first.

    Raises:
        InvalidStudy: the function cannot be loaded, or there are no documents for it.
    """
    loaded = load_source(str(spec.function), include, f"{key}.function")
    if spec.path is not None:
        return Function(spec, loaded, read_rows(spec.path, root, f"{key}.path", None))
    return Function(spec, loaded, _own_documents(spec, loaded, f"{key}.function"))


def _own_documents(spec: TaskSpec, loaded: Loaded, key: str) -> list[Any]:
    """The documents that the module brings: `documents`, a list or what gives one."""
    own = getattr(loaded.module, "documents", None)
    if own is None:
        problem = "has no documents"
        raise InvalidStudy(key, spec.function, problem, "name a .jsonl file in `path`, or define `documents` beside it")
    try:
        documents = json.loads(json.dumps(list(own() if callable(own) else own)))
        canonical(documents)  # text that is no Unicode cannot be told apart
    except (Exception, SystemExit) as error:  # the user's code, and values that JSON does not know
        require_own(error)
        problem = f"brings documents that cannot be used ({type(error).__name__}: {error})"
        raise InvalidStudy(key, spec.function, problem, "let `documents` be a list of plain JSON values") from error
    if not documents:
        raise InvalidStudy(key, spec.function, "brings no documents", "let `documents` be a list that is not empty")
    return list(documents)
