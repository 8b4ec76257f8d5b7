"""One lm-eval task, built and read as the stock `lm_eval` command does it.

Importing it takes a second (data sets, pandas), so import it where it is used.
"""

from collections.abc import Sequence
from typing import Any

import lm_eval
from lm_eval.api.metrics import _bootstrap_internal, acc_all_stderr, mean_stderr, sample_stddev, stderr_for_metric
from lm_eval.api.registry import AGGREGATION_REGISTRY
from lm_eval.defaults import DEFAULT_OTHER_SEED

from evaluation.chat import Chat
from evaluation.describe import described
from evaluation.fewshot import require_own_examples
from evaluation.sources import source_digests
from evaluation.spec import TaskSpec
from evaluation.statistics import Aggregation
from evaluation.stock import compiled_once
from merging.errors import InvalidStudy

VERSION: str = lm_eval.__version__
_UNSAID = (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError)
_CORPUS_METRICS = ("bleu", "chrf", "chrf++", "ter")  # lm-eval bootstraps these 100 times at most


class HarnessTask:
    """One lm-eval task with the metric chosen, its requests built for all of its documents.

    Attributes:
        name: lm-eval's name.
        metric, filter: the metric and the filter it is read through.
        documents: all of the task's documents, in lm-eval's order; the position is the `doc_id`.
        instances: lm-eval's requests by `doc_id`, each list in lm-eval's order.
    """

    def __init__(self, task: Any, spec: TaskSpec, key: str, chat: Chat | None = None) -> None:
        """Args: key: where the task stands in the study (`evaluation.tasks[0]`); chat: what its prompts go through."""
        self.name = spec.name
        self.documents: Sequence[Any] = list(task.eval_docs)
        self._task, self._key, self._chat = task, key, chat
        self.metric, self.filter = _choose_metric(task, spec, key)
        self.aggregation = _aggregation(task.aggregation()[self.metric])
        self.higher_is_better = _direction(task, self.metric, key)
        self.instances = _build(task, spec, key, chat)

    @property
    def shown_metric(self) -> str:
        """lm-eval's name of the metric, with its filter if that is not `none`."""
        return self.metric if self.filter == "none" else f"{self.metric},{self.filter}"

    @property
    def generates(self) -> bool:
        """Whether the model answers with texts of its own."""
        return bool(self._task.OUTPUT_TYPE == "generate_until")

    @property
    def version(self) -> str:
        """The task's version, as its author counts."""
        return str(self._task.VERSION)

    @property
    def config(self) -> dict[str, Any]:
        """lm-eval's description of the task, functions by their source, without what differs between machines."""
        # lm-eval's own dump gives nested functions, and those without source, by their address
        config: dict[str, Any] = described(self._task.config.to_dict(keep_callable=True))
        config.pop("dataset_kwargs", None)
        (config.get("metadata") or {}).pop("config_source", None)
        return config

    @property
    def sources(self) -> list[str]:
        """Digests of the files behind the task's functions."""
        config = self._task.config.to_dict(keep_callable=True)
        return source_digests(config, type(self._task), self.aggregation.function)

    def items(self, doc_ids: Sequence[int]) -> list[Any]:
        """What the metric gives for each document, from the responses that now stand in its requests."""
        # filters see all requests of a task at once, and only those that were answered
        self._task._instances = [request for doc_id in doc_ids for request in self.instances[doc_id]]
        self._task.apply_filters()
        with compiled_once():
            return [self._item(doc_id) for doc_id in doc_ids]

    def _item(self, doc_id: int) -> Any:
        requests = sorted(self.instances[doc_id], key=lambda request: request.idx)
        responses = [request.filtered_resps[self.filter] for request in requests]
        results = self._task.process_results(self.documents[doc_id], responses)
        if self.metric not in results:
            raise InvalidStudy(
                f"evaluation.tasks.{self.name}.metric",
                self.metric,
                f"has no value for document {doc_id}",
                "choose a metric that every document has",
            )
        return results[self.metric]

    def prompt(self, doc_id: int) -> str:
        """A document's prompt, the first if it has several; the text itself where that is what is scored."""
        return str(self.instances[doc_id][0].args[0])

    def example(self, doc_id: int) -> tuple[str, str]:
        """A document's prompt and the continuation that is right, as one text each.

        Raises:
            InvalidStudy: the task does not say which continuation is right.
        """
        try:
            return _right(self._task, self.documents[doc_id], self.instances[doc_id], self._chat is not None)
        except _UNSAID as error:
            problem = f"does not say what is right for document {doc_id} ({cause_of(error)})"
            raise InvalidStudy(f"evaluation.tasks.{self.name}", None, problem, "choose another task") from error

    @property
    def trained(self) -> int:
        """How many documents the task's training split has; 0: it has none, or its data is nothing to pick from."""
        split, data = self._task.config.training_split, getattr(self._task, "dataset", None) or {}
        found = data.get(split)
        return len(found) if found is not None and hasattr(found, "select") else 0

    def training(self, numbers: Sequence[int]) -> list[Any]:
        """Documents of the training split, as the task makes them of those of these numbers.

        Raises:
            InvalidStudy: its `process_docs` fails on them.
        """
        config = self._task.config
        raw = self._task.dataset[config.training_split].select(numbers)
        try:
            return list(raw if config.process_docs is None else config.process_docs(raw))
        except Exception as error:  # the user's
            raise self._unread(error) from error

    def taught(self, document: Any) -> tuple[str, str] | None:
        """Prompt and right continuation of a document of the training split; None: its own prompt gives it away, being
        one of the few-shot examples, which are the same for all of them.

        Raises:
            InvalidStudy: its prompt cannot be built, or the task does not say which continuation is right.
        """
        try:
            return self._taught(document)
        except Exception as error:  # templates and samplers are the user's
            raise self._unread(error) from error

    def _taught(self, document: Any) -> tuple[str, str] | None:
        task, shots = self._task, self._task.config.num_fewshot
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
        if shots and document in task.sampler.sample(shots):
            return None
        task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
        chatted = {k: v for k, v in _chatted(self._chat).items() if k != "tokenizer_name"}
        context = task.fewshot_context(document, shots, gen_prefix=task.doc_to_prefix(document), **chatted)
        chatted.pop("fewshot_as_multiturn", None)
        requests = task.construct_requests(doc=document, ctx=context, metadata=(self.name, 0, 1), **chatted)
        return _right(task, document, requests if isinstance(requests, list) else [requests], self._chat is not None)

    def _unread(self, error: Exception) -> InvalidStudy:
        problem = f"has a training split whose documents cannot be read ({cause_of(error)})"
        return InvalidStudy(f"{self._key}.name", self.name, problem, "mend it, or set evaluation.learn_on: search")

    def stderr(self, items: Sequence[Any], iterations: int) -> float | None:
        """lm-eval's standard error; None where it gives none.

        Args:
            iterations: draws where lm-eval bootstraps (median, f1, mcc, perplexity, bleu ...); 0: none there.
        """
        draws = min(iterations, 100) if self.metric in _CORPUS_METRICS else iterations
        function = stderr_for_metric(self.aggregation.function, bootstrap_iters=1)
        if function is None or len(items) < 2:
            return None
        if function in (mean_stderr, acc_all_stderr):
            return float(function(items))
        if draws == 0:
            return None
        # lm-eval's own bootstrap starts a process pool, which a pool's worker may not, and prints; same draws here
        chunk = min(1000, draws)
        replicate = _bootstrap_internal(self.aggregation.function, chunk)
        return float(sample_stddev([value for i in range(draws // chunk) for value in replicate((i, items))]))


def _choose_metric(task: Any, spec: TaskSpec, key: str) -> tuple[str, str]:
    """The metric and the filter asked for; by default the first of each that the task declares."""
    metrics = list(task.aggregation())
    filters = [ensemble.name for ensemble in task._filters]
    asked, _, asked_filter = (spec.metric or metrics[0]).partition(",")
    if asked not in metrics or (asked_filter or filters[0]) not in filters:
        named = [m if f == "none" else f"{m},{f}" for m in metrics for f in filters]
        raise InvalidStudy(
            f"{key}.metric", spec.metric, f"is no metric of {spec.name}", f"choose one of {listed(named)}"
        )
    return asked, asked_filter or filters[0]


def _aggregation(function: Any) -> Aggregation:
    names = {id(known): name for name, known in AGGREGATION_REGISTRY.items()}
    own = getattr(function, "__name__", "custom")
    # a user's own `mean` may do something else with the items than lm-eval's, which is known to be one of sums
    return Aggregation(names.get(id(function), f"own {own}" if own in AGGREGATION_REGISTRY else own), function)


def _direction(task: Any, metric: str, key: str) -> bool:
    higher = task.higher_is_better().get(metric)
    if higher is None:
        raise InvalidStudy(
            f"{key}.metric", metric, "does not say whether higher is better", "add higher_is_better to the task's YAML"
        )
    return bool(higher)


def _build(task: Any, spec: TaskSpec, key: str, chat: Chat | None) -> dict[int, list[Any]]:
    """Requests of all documents: few-shot examples are drawn in sequence, so a subset would get other prompts."""
    own = task.get_config("num_fewshot")
    if spec.num_fewshot is not None and own == 0 and spec.num_fewshot > 0:
        # lm-eval ignores the override here; a study should not believe it was heard
        raise InvalidStudy(f"{key}.num_fewshot", spec.num_fewshot, "is fixed at 0 by the task", "leave it out")
    shots = (own if spec.num_fewshot is None else spec.num_fewshot) or 0
    require_own_examples(task, spec, shots, key)
    task.set_config(key="num_fewshot", value=shots)
    task.set_fewshot_seed(seed=DEFAULT_OTHER_SEED)
    try:
        task.build_all_requests(**_chatted(chat))
    except Exception as error:  # templates and samplers are the user's
        raise InvalidStudy(
            f"{key}.name", spec.name, f"cannot build its prompts ({cause_of(error)})", "mend it or its num_fewshot"
        ) from error
    instances: dict[int, list[Any]] = {}
    for request in task.instances:
        instances.setdefault(request.doc_id, []).append(request)
    return instances


def _right(task: Any, document: Any, requests: Sequence[Any], in_chat: bool) -> tuple[str, str]:
    """Prompt and right continuation: from the request whose answer the metric wants to be likely, or the target."""
    prompt, continuation = _right_of(task, document, requests, in_chat)
    return str(prompt), str(continuation)


def _right_of(task: Any, document: Any, requests: Sequence[Any], in_chat: bool) -> tuple[Any, Any]:
    if task.OUTPUT_TYPE == "loglikelihood_rolling":
        return "", requests[0].args[0]
    if task.OUTPUT_TYPE == "loglikelihood":
        return requests[0].args
    target = _first(task.doc_to_target(document))
    if task.OUTPUT_TYPE == "generate_until":
        delimiter = "" if in_chat else task.config.target_delimiter  # a turn of a chat begins with the answer
        return requests[0].args[0], f"{delimiter}{target}"
    if task.multiple_input:  # the choices are prompts, and the document's text says which is right
        target = task.doc_to_text(document)
    choices = task.doc_to_choice(document)
    return requests[target if isinstance(target, int) else choices.index(target)].args


def _first(target: Any) -> Any:
    """Of several right answers the first."""
    return target[0] if isinstance(target, list | tuple) else target


def _chatted(chat: Chat | None) -> dict[str, Any]:
    """What lm-eval's command gives `build_all_requests` for a chat template."""
    if chat is None:
        return {}
    given = {"apply_chat_template": True, "chat_template": chat.render, "tokenizer_name": chat.name}
    return given | {"fewshot_as_multiturn": chat.multiturn}


def listed(names: Sequence[str], most: int = 20) -> str:
    """Names in one line, the first of them."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def cause_of(error: BaseException) -> str:
    """What lies at the bottom of an error; the wrappers of `datasets` say little."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}"
