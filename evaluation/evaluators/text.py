"""The perplexity of the user's own text: lm-eval's `loglikelihood_rolling` without a task file.

Importing it takes a second (lm-eval), so import it where it is used.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

from evaluation.evaluators.contract import Subject
from evaluation.evaluators.documents import read_texts
from evaluation.evaluators.measures import aggregation
from evaluation.spec import TEXT_METRICS, TaskSpec

_AGGREGATIONS = {
    "bits_per_byte": "bits_per_byte",
    "word_perplexity": "weighted_perplexity",
    "byte_perplexity": "weighted_perplexity",
}


class Text:
    """How well the candidate predicts texts, as lm-eval measures it. Satisfies `Evaluator`.

    An item is [log-likelihood in nats, bytes or words].
    """

    higher_is_better = False

    def __init__(self, name: str, metric: str, documents: Sequence[dict[str, Any]]) -> None:
        """Args: documents: each with its `text`."""
        self.name, self.shown_metric, self.documents = name, metric, documents
        self.aggregation = aggregation(_AGGREGATIONS[metric])
        self.config = {"kind": "text", "metric": metric}
        # one object a document for good, so that what the scorer prepares for it is found again
        self._requests = [
            Instance("loglikelihood_rolling", document, (document["text"],), 0, (name, doc_id, 1))
            for doc_id, document in enumerate(documents)
        ]

    def stderr(self, items: Sequence[Any], iterations: int) -> float | None:
        """None: lm-eval gives a perplexity of this kind no standard error."""
        return None

    def answer(self, doc_ids: Sequence[int], subject: Subject) -> list[Any]:
        """As `Evaluator.answer`."""
        found = subject.lm.loglikelihood_rolling([self._requests[i] for i in doc_ids], disable_tqdm=True)
        subject.beat(len(doc_ids))
        return [[float(nats), self._length(i)] for i, nats in zip(doc_ids, found, strict=True)]

    def _length(self, doc_id: int) -> int:
        text = self.documents[doc_id]["text"]
        # as lm-eval counts both
        return len(re.split(r"\s+", text)) if self.shown_metric == "word_perplexity" else len(text.encode("utf-8"))


def load_text(spec: TaskSpec, root: Path, key: str) -> Text:
    """The evaluator of a task of kind `text`. Raises as `load_evaluator`."""
    return Text(spec.name, spec.metric or TEXT_METRICS[0], read_texts(str(spec.path), root, f"{key}.path"))
