"""Label-free measures of a model: cheap hints at its real score, to be trusted as far as they rank alike.

Importing it takes seconds (torch, lm-eval), so import it where it is used.
"""

import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from evaluation.evaluators.contract import Subject
from evaluation.evaluators.documents import read_texts
from evaluation.evaluators.measures import aggregation, mean_error
from evaluation.evaluators.states import Ids, hidden_states, logits, token_ids
from evaluation.lm.budget import Budget, chunks
from evaluation.spec import ProxyKind, TaskSpec

_MOST_LOGITS = 1 << 26  # numbers of a batch's logits: bounds the memory where all positions count


class Proxy:
    """One number a text without looking at any answer, averaged. Satisfies `Evaluator`.

    Attributes:
        last: `entropy` alone: how many positions count, from the end; None: all.
    """

    higher_is_better = False  # a sure model, and one that compresses, is the better one

    def __init__(self, name: str, kind: ProxyKind, texts: Sequence[str], last: int | None = None) -> None:
        self.name, self.shown_metric, self.last = name, kind, last
        self.documents = [{"text": text} for text in texts]
        self.aggregation = aggregation("mean")
        self.config = {"kind": kind} | ({"last": last} if kind == "entropy" else {})
        self._kind = kind
        self._budget: tuple[weakref.ref[Any], Budget] | None = None

    def stderr(self, items: Sequence[Any], iterations: int) -> float | None:
        """The standard error of the mean."""
        return mean_error(items)

    def answer(self, doc_ids: Sequence[int], subject: Subject) -> list[Any]:
        """As `Evaluator.answer`."""
        rows = token_ids([self.documents[i]["text"] for i in doc_ids], subject)
        order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
        items: dict[int, float] = {}

        def measure(batch: Sequence[int]) -> None:
            found = self._measure([rows[i] for i in batch], subject.model)
            items.update(zip(batch, found, strict=True))
            subject.beat(len(items))

        self._budget_of(subject).run(order, lambda i: len(rows[i]), measure)
        return [items[i] for i in range(len(rows))]

    def _measure(self, rows: Sequence[Ids], model: Any) -> list[float]:
        if self._kind == "matrix_nuclear_norm":
            return [matrix_nuclear_norm(states) for states in hidden_states(rows, model)]
        return [float(entropies(found).mean()) for found in logits(rows, model, self.last)]

    def _budget_of(self, subject: Subject) -> Budget:
        """The same for all candidates in one live model: equal batches make equal numbers."""
        if self._budget is None or self._budget[0]() is not subject.model:
            budget = Budget(subject.model, subject.device, None)
            budget.most_rows = getattr(getattr(subject.lm, "budget", None), "most_rows", None)  # evaluation.batch_size
            if self._kind == "entropy" and self.last is None:
                budget.tokens = min(budget.tokens, _MOST_LOGITS // subject.model.config.get_text_config().vocab_size)
            self._budget = weakref.ref(subject.model), budget
        return self._budget[1]


def entropies(found: torch.Tensor) -> torch.Tensor:
    """The entropy of each next-token distribution, in nats: Σ −p log p. logits [n, V] -> [n] in float32."""
    each = []
    for part in chunks(len(found), found.shape[1], found.device):
        logp = found[part].float().log_softmax(-1)
        each.append(torch.special.entr(logp.exp()).sum(-1))
    return torch.cat(each)


def matrix_nuclear_norm(states: torch.Tensor) -> float:
    """The matrix nuclear norm of a text's states [n, d], per token: an O(n d) stand-in for the nuclear norm.

    Σ of the D largest column norms of the centred states with rows of length 1, over n; D = min(n, d).
    Li et al. 2024, https://arxiv.org/abs/2410.10672, section 3; a row that equals the mean counts nothing.
    """
    centred = states - states.mean(dim=0)
    rows = torch.nn.functional.normalize(centred, dim=1)
    norms = rows.norm(dim=0)  # [d]
    return float(norms.topk(min(states.shape)).values.sum() / len(states))


def load_proxy_task(spec: TaskSpec, root: Path, key: str) -> Proxy:
    """The evaluator of a task of kind `entropy` or `matrix_nuclear_norm`. Raises as `load_evaluator`."""
    assert spec.kind in ("entropy", "matrix_nuclear_norm")
    return Proxy(spec.name, spec.kind, [row["text"] for row in read_texts(str(spec.path), root, f"{key}.path")])
