"""The suite of a study: its tasks with their metric, the documents of each part, and digests that name it all."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.calibration import prompted, prompts
from evaluation.chat import Chat, open_chat
from evaluation.evaluators.contract import Evaluator
from evaluation.evaluators.load import proxy_evaluator
from evaluation.result import Part
from evaluation.spec import PROXY, PROXY_PROMPTS, EvaluationSpec, ProxySpec
from evaluation.split import Split, canonical, require_both_parts, split
from evaluation.statistics import Aggregation
from evaluation.training import Training, digest_of, training_of
from evaluation.wanted import Wanted

if TYPE_CHECKING:
    from evaluation.harness import HarnessTask

    Task = HarnessTask | Evaluator


@dataclass(frozen=True)
class Suite:
    """What candidates are scored on. Two suites of one digest give one model the same scores.

    Attributes:
        tasks: as the study names them, in its order; `evaluation.proxy`, if the study has it, comes last and has
            search documents alone: prompts of the other tasks' search documents.
        splits: the documents of each task.
        digest: of the tasks' configuration, metric and prompts, and the documents of each part.
        task_digests: of each task by itself, all of its documents and the files of its functions included: whatever
            the split, the cap and the other tasks are, one recipe earns one item on a document.
        tuned: the tasks that are optimised: those of weight 0 are only reported, and nothing is learned on them.
        training: what is learned on instead of the search documents, of the tasks that have a training split.
        training_digest: of these.
    """

    tasks: "tuple[Task, ...]"
    splits: Mapping[str, Split]
    digest: str
    task_digests: Mapping[str, str]
    tuned: tuple[str, ...] = ()
    training: Training = field(default_factory=dict)
    training_digest: str = ""

    @staticmethod
    def load(spec: EvaluationSpec, root: Path, key: str, tokenizer: Path | None = None) -> "Suite":
        """Load a study's tasks and split their documents.

        Args:
            root: what `include_path` and the tasks' files are relative to.
            key: the study's split key.
            tokenizer: the folder whose chat template the candidates have (`chat.template_folder`); read only if the
                prompts go through it.

        Raises:
            InvalidStudy: a task, metric, file or folder is unknown or unusable, a part of a task has no documents,
                or there is no chat template.
        """
        from evaluation.taskfiles import load_tasks  # lm-eval takes a second to import

        chat = None
        if spec.chat_template:
            if tokenizer is None:
                raise ValueError("a suite with a chat template needs the folder that has it")
            chat = open_chat(tokenizer, spec.fewshot_as_multiturn)
        tasks = tuple(load_tasks(spec, root, chat))
        splits = {task.name: split(task.documents, key, spec.holdout, spec.documents) for task in tasks}
        for i, task in enumerate(tasks):
            require_both_parts(splits[task.name], f"evaluation.tasks[{i}]", task.name, len(task.documents))
        suite = _digested(tasks, splits, chat)
        suite = suite if spec.proxy is None else _with_proxy(suite, spec.proxy, chat)
        suite = replace(suite, tuned=tuple(task.name for task in spec.tasks if task.weight > 0))
        if spec.learn_on == "training":
            tuned = [task for task in prompted(suite) if task.name in suite.tuned]
            training = training_of(tuned, suite.contents, key)
            suite = replace(suite, training=training, training_digest=digest_of(training))
        return suite if spec.backend == "transformers" else _answered_by(spec.backend, suite)

    @property
    def tuning_digest(self) -> str:
        """Digest of what is learned on: search or training documents of the tasks that are optimised."""
        own = [self.training_digest] if self.training_digest else []  # suites without keep the digest of before
        parts = ["mergesearch/tuning/v1", self.digest, sorted(self.tuned), *own]
        return blake2b(canonical(parts), digest_size=16).hexdigest()

    def learned_on(self, tuning_digest: str) -> "Suite | None":
        """The suite as a recipe of that digest read it, be it on search documents alone; None: it read another."""
        both = (self, replace(self, training={}, training_digest=""))
        return next((suite for suite in both if suite.tuning_digest == tuning_digest), None)

    def contents(self) -> set[bytes]:
        """What the documents of both parts hold, of all tasks."""
        return {canonical(task.documents[i]) for task in self.tasks for i in self.splits[task.name].order}

    def is_of(self, setup: Mapping[str, Any]) -> bool:
        """Whether a study with that setup is scored on this suite. One of an earlier version says less of its tasks."""
        return (self.digest, self.task_digests) == (setup["suite_digest"], setup.get("task_digests", self.task_digests))

    def documents(self, task: str, part: Part) -> tuple[int, ...]:
        """The `doc_id`s of one part of a task, ascending."""
        parts = self.splits[task]
        return parts.search if part == "search" else parts.holdout

    def order(self, task: str, part: Part) -> tuple[int, ...]:
        """The `doc_id`s of one part of a task, in the order they are scored: the first n are a random sample."""
        return self.splits[task].ordered(part)

    def wanted(self, part: Part) -> Wanted:
        """All documents of a part, nothing known."""
        documents = {task.name: self.documents(task.name, part) for task in self.tasks}
        return Wanted(part, {task: doc_ids for task, doc_ids in documents.items() if doc_ids}, {})

    def aggregations(self) -> dict[str, Aggregation]:
        """How each task makes one value of its documents' items."""
        return {task.name: task.aggregation for task in self.tasks}


def _with_proxy(suite: Suite, spec: ProxySpec, chat: Chat | None) -> Suite:
    """The suite with a last task whose documents are prompts of the others' search documents."""
    asking = sum(hasattr(task, "instances") for task in suite.tasks)  # the others have no prompts
    proxy = proxy_evaluator(spec, prompts(suite, max(1, PROXY_PROMPTS // max(1, asking))))
    every = tuple(range(len(proxy.documents)))
    splits = {**suite.splits, PROXY: Split(every, (), every)}
    return _digested((*suite.tasks, proxy), splits, chat)


def _answered_by(backend: str, suite: Suite) -> Suite:
    """The suite with digests of its own: another backend earns other items in the last digits."""

    def own(digest: str) -> str:
        return blake2b(canonical([backend, digest]), digest_size=16).hexdigest()

    alone = {name: own(digest) for name, digest in suite.task_digests.items()}
    return replace(suite, digest=own(suite.digest), task_digests=alone)


def _digested(tasks: "tuple[Task, ...]", splits: Mapping[str, Split], chat: Chat | None) -> Suite:
    from evaluation.harness import VERSION

    state = blake2b(canonical(["mergesearch/suite/v1", VERSION]), digest_size=16)
    template = [] if chat is None else [chat.template, chat.multiturn]
    alone: dict[str, str] = {}
    for task in tasks:
        parts, about = splits[task.name], [task.name, task.shown_metric, task.higher_is_better, task.config]
        code = [getattr(task, "version", None), getattr(task, "sources", [])]
        own = blake2b(canonical(["mergesearch/task/v1", VERSION, *code, *about, template]), digest_size=16)
        state.update(canonical(about))
        state.update(canonical([parts.search, parts.holdout]))
        texts = list(_requests(task))
        for text in texts:
            own.update(text)
        for doc_id in (*parts.search, *parts.holdout):
            state.update(texts[doc_id])
        alone[task.name] = own.hexdigest()
    if chat is not None:  # suites without one keep the digest of before there were any
        state.update(canonical(template))
    return Suite(tasks, splits, state.hexdigest(), alone)


def _requests(task: "Task") -> Iterator[bytes]:
    """Of every document its prompts with their few-shot examples, and what it is judged by."""
    instances: Mapping[int, Sequence[Any]] = getattr(task, "instances", {})  # other evaluators ask for themselves
    for doc_id, document in enumerate(task.documents):
        yield canonical([document, *(request.arguments for request in instances.get(doc_id, ()))])
