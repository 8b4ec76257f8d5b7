"""The limit that a scorer cannot pass: a bare forward pass over the tokens that must be computed, and nothing else.

Rows of one length go together, so nothing is padded; the head sees only positions whose prediction is asked for.
A multiple-choice document is one row: its context once, and of every different continuation all but the last token.
A generation is one row of context and answer, as if a draft had been right. Rows are cut out before the clock starts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

BUDGET = 2048  # positions a batch
HEAD_ROWS = 512  # predictions a call of the head


@dataclass(frozen=True, slots=True)
class Row:
    """Input tokens, and the positions at which a token's probability is asked for."""

    tokens: tuple[int, ...]
    targets: tuple[tuple[int, int], ...]  # position, token


def choice_rows(lm: Any, requests: Sequence[Any]) -> list[Row]:
    """A row a context; requests are lm-eval's, of type loglikelihood."""
    continuations: dict[tuple[int, ...], dict[tuple[int, ...], None]] = {}
    for request in requests:
        context, continuation = lm._encode_pair(*request.args)
        continuations.setdefault(tuple(context), {})[tuple(continuation)] = None
    rows = []
    for context, found in continuations.items():
        tokens, targets = list(context), []
        for continuation in found:
            targets.append((len(context) - 1, continuation[0]))
            targets += [(len(tokens) + i, token) for i, token in enumerate(continuation[1:])]
            tokens += continuation[:-1]
        rows.append(Row(tuple(tokens), tuple(targets)))
    return rows


def generation_rows(lm: Any, requests: Sequence[Any], answers: Sequence[str]) -> list[Row]:
    """A row a request, with the answer that was generated."""
    rows = []
    for request, answer in zip(requests, answers, strict=True):
        context = lm.tok_encode(request.args[0])
        answered = lm.tok_encode(answer, add_special_tokens=False) or [0]
        targets = tuple((len(context) - 1 + i, token) for i, token in enumerate(answered))
        rows.append(Row((*context, *answered), targets))
    return rows


def rolling_rows(lm: Any, requests: Sequence[Any]) -> list[Row]:
    """A row a window."""
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    rows = []
    for request in requests:
        tokens = lm.tok_encode(request.args[0])
        windows = get_rolling_token_windows(tokens, lm.prefix_token_id, lm.max_length, 1)
        for context, targets in map(make_disjoint_window, windows):
            inputs = (*context, *targets)[:-1]
            first = len(context) - 1
            rows.append(Row(inputs, tuple((first + i, token) for i, token in enumerate(targets))))
    return rows


class Bare:
    """The forward passes of some rows."""

    def __init__(self, model: Any, rows: Sequence[Row]) -> None:
        self._model = model
        by_length: dict[int, list[Row]] = {}
        for row in rows:
            by_length.setdefault(len(row.tokens), []).append(row)
        self._batches = [batch for length, same in sorted(by_length.items()) for batch in _cut(same, length)]
        self.positions = sum(len(row.tokens) for row in rows)

    @torch.inference_mode()
    def run(self) -> float:
        """Compute it all; the sum of the log-probabilities, so that nothing can be left out."""
        total = 0.0
        for ids, places, tokens in self._batches:
            hidden = self._model.model(input_ids=ids, use_cache=False).last_hidden_state.flatten(0, 1)
            for at, asked in zip(places.split(HEAD_ROWS), tokens.split(HEAD_ROWS), strict=True):
                logits = self._model.lm_head(hidden[at])  # [rows, vocabulary]
                total += float(logits.log_softmax(-1).gather(1, asked[:, None]).sum())
        return total


def _cut(rows: Sequence[Row], length: int) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Batches within the budget: ids [rows, length], and flat positions and tokens of the targets."""
    size = max(1, BUDGET // length)
    batches = []
    for begin in range(0, len(rows), size):
        batch = rows[begin : begin + size]
        places = [i * length + position for i, row in enumerate(batch) for position, _ in row.targets]
        tokens = [token for row in batch for _, token in row.targets]
        batches.append((torch.tensor([row.tokens for row in batch]), torch.tensor(places), torch.tensor(tokens)))
    return batches


def make_bare(kind: str, model: Any, lm: Any, requests: Sequence[Any], answers: Mapping[str, Sequence[Any]]) -> Bare:
    """The limit of one kind of task.

    Args:
        lm: any of lm-eval's Hugging Face models, for its tokenisation.
        answers: what was answered to the requests, by kind; only generations are needed.
    """
    if kind == "choice":
        return Bare(model, choice_rows(lm, requests))
    if kind == "rolling":
        return Bare(model, rolling_rows(lm, requests))
    return Bare(model, generation_rows(lm, requests, answers["generation"]))
