"""What the live model computes for whole texts: the states before its output layer, or logits where wanted.

Importing it takes seconds (torch), so import it where it is used.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from evaluation.evaluators.contract import Subject

Ids = Sequence[int]


def token_ids(texts: Sequence[str], subject: Subject) -> list[list[int]]:
    """Each text's token ids; of one that is longer than the context window, the last."""
    encoded = (subject.lm.tok_encode(text)[-subject.lm.max_length :] for text in texts)
    return [list(ids) or [subject.lm.prefix_token_id] for ids in encoded]


@torch.no_grad()
def hidden_states(rows: Sequence[Ids], model: Any) -> list[torch.Tensor]:
    """The last states of each row, [n, hidden] in float32: what the output layer would see."""
    with _before_head(model, lambda states: states[:, :1]) as seen:
        _forward(rows, model)
    (states,) = seen
    return [states[i, : len(row)].float() for i, row in enumerate(rows)]


@torch.no_grad()
def logits(rows: Sequence[Ids], model: Any, last: int | None) -> list[torch.Tensor]:
    """The logits of each row's last positions, [n, vocabulary].

    Args:
        last: how many positions; None: all.
    """
    width = max(map(len, rows))
    taken = [range(max(0, len(row) - (last or len(row))), len(row)) for row in rows]
    wanted = torch.tensor([i * width + place for i, places in enumerate(taken) for place in places])
    with _before_head(model, lambda states: states.flatten(0, 1)[wanted.to(states.device)][None]):
        found = _forward(rows, model)  # [1, wanted, vocabulary]
    return list(found[0].split([len(places) for places in taken]))


def _forward(rows: Sequence[Ids], model: Any) -> torch.Tensor:
    """Rows padded on the right: no position sees the padding behind it, so no mask is needed."""
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    found: torch.Tensor = model(input_ids=ids.to(model.device), use_cache=False).logits
    return found


@contextmanager
def _before_head(model: Any, narrow: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """The output layer sees what `narrow` leaves of [batch, positions, hidden]; the list gets all of it."""
    seen: list[torch.Tensor] = []

    def before(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        seen.append(args[0])
        return (narrow(args[0]), *args[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(before)
    try:
        yield seen
    finally:
        handle.remove()
