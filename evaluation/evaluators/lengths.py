"""How long a candidate's answers are: the tokens of what it generates for another task's documents.

Nothing is generated for it: it reads the answers that the other task is scored on, while they are there.

Importing it takes a second (lm-eval), so import it where it is used.
"""

from collections.abc import Sequence
from hashlib import blake2b
from statistics import fmean
from typing import Any

from evaluation.evaluators.contract import Subject
from evaluation.evaluators.measures import aggregation, mean_error
from evaluation.harness import HarnessTask
from evaluation.spec import TaskSpec
from evaluation.split import canonical
from merging.errors import InvalidStudy


class AnswerTokens:
    """The mean length of the answers to a task's documents, in tokens; shorter is better. Satisfies `Evaluator`.

    An item is the number of tokens of a document's answer, the mean of them where it is asked more than once.

    Attributes:
        source: the task whose answers are counted. Its documents are this task's, so both have the same split.
    """

    shown_metric, higher_is_better = "tokens", False

    def __init__(self, name: str, source: HarnessTask) -> None:
        self.name, self.source = name, source
        self.documents = source.documents
        self.aggregation = aggregation("mean")

    @property
    def version(self) -> str:
        """The other task's."""
        return self.source.version

    @property
    def sources(self) -> list[str]:
        """Those of the other task: its functions make the prompts."""
        return self.source.sources

    @property
    def config(self) -> dict[str, Any]:
        """The other task's, with its prompts and how it is answered; its metric does not matter."""
        state = blake2b(digest_size=16)
        for doc_id in range(len(self.documents)):
            state.update(canonical([request.arguments for request in self.source.instances[doc_id]]))
        about = {"kind": "answer_tokens", "of": self.source.name, "prompts": state.hexdigest()}
        return about | {"task": self.source.config}

    def stderr(self, items: Sequence[Any], iterations: int) -> float | None:
        """lm-eval's standard error of a mean."""
        return mean_error(items)

    def answer(self, doc_ids: Sequence[int], subject: Subject) -> list[Any]:
        """As `Evaluator.answer`, of the answers that now stand in the other task's requests: the subject is not asked.

        Counted is the text that the other task is scored on, without special tokens: what lm-eval cuts off at a stop
        string is not part of it.
        """
        return [self._length(self.source.instances[doc_id], subject.tokenizer) for doc_id in doc_ids]

    def _length(self, requests: Sequence[Any], tokenizer: Any) -> float:
        texts = [text for request in requests for text in request.resps]
        return fmean(len(tokenizer(text, add_special_tokens=False).input_ids) if text else 0 for text in texts)


def answer_tokens(spec: TaskSpec, key: str, source: Any) -> AnswerTokens:
    """The evaluator of a task of kind `answer_tokens`.

    Args:
        key: where the task stands in the study.
        source: the task that `of` names.

    Raises:
        InvalidStudy: that task does not let the model generate.
    """
    if not isinstance(source, HarnessTask) or not source.generates:
        problem = "does not let the model generate, so it has no answers to count"
        raise InvalidStudy(f"{key}.of", spec.of, problem, "name a task whose output_type is generate_until")
    return AnswerTokens(spec.name, source)
