"""A batch of growing sequences on a live model: what they share is computed once, wrong guesses are taken back."""

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import DynamicCache


class Lanes:
    """Rows of one key-value cache. Each forward pass adds tokens to every row; `keep` drops rows and last tokens.

    Attributes:
        held: tokens of each row in the cache. They stand in its last columns, so that shorter rows are padded left;
            new tokens are padded right.

    Args:
        model: a causal model with attention layers only (`genrules` says which may come here).
        stem: a batch of one row that all new rows begin with; it stays as it is.
        rows: how many.
    """

    def __init__(self, model: Any, rows: int, stem: "Lanes | None" = None) -> None:
        self._model = model
        if stem is None:
            self._cache = DynamicCache(config=model.config.get_text_config(decoder=True))
            self._cache.activate_past_recording()
        else:
            self._cache = copy.deepcopy(stem._cache)
            for layer in self._cache.layers:
                layer.keys, layer.values = (each.expand(rows, -1, -1, -1) for each in (layer.keys, layer.values))
        self.held: list[int] = [stem.held[0] if stem else 0] * rows
        self._width = self.held[0]  # columns of the cache
        self._fed = [0] * rows
        self._placed = "position_ids" in inspect.signature(model.forward).parameters

    @torch.no_grad()
    def feed(self, tokens: Sequence[list[int]], wanted: Sequence[int]) -> torch.Tensor:
        """Add tokens to every row in one forward pass.

        Args:
            tokens: of each row, at least one.
            wanted: of how many of a row's last tokens the logits are wanted.

        Returns:
            [sum of wanted, vocabulary], row by row.
        """
        new = max(map(len, tokens))
        device = self._model.device
        ids = torch.tensor([[*row, *row[-1:] * (new - len(row))] for row in tokens], device=device)
        lengths = torch.tensor([len(row) for row in tokens])
        places = torch.cat(
            [
                torch.arange(i * new + len(row) - n, i * new + len(row))
                for i, (row, n) in enumerate(zip(tokens, wanted, strict=True))
            ]
        )
        inputs = self._sight(lengths, new)
        self._fed = lengths.tolist()
        with _only(self._model.get_output_embeddings(), places.to(device)):
            output = self._model(input_ids=ids, past_key_values=self._cache, use_cache=True, **inputs)
        return output.logits[0]

    def _sight(self, lengths: torch.Tensor, new: int) -> dict[str, torch.Tensor]:
        """Positions of the new tokens, and which columns hold tokens if not all do."""
        held, device = torch.tensor(self.held), self._model.device
        steps = torch.arange(new)
        inputs = {}
        if self._placed:  # padding takes the last token's place: there may be none after it
            inputs["position_ids"] = (held[:, None] + torch.minimum(steps, lengths[:, None] - 1)).to(device)
        if (held < self._width).any():
            left = torch.arange(self._width) >= self._width - held[:, None]
            inputs["attention_mask"] = torch.cat([left, steps < lengths[:, None]], 1).long().to(device)
        return inputs

    def keep(self, rows: Sequence[int], dropped: Sequence[int]) -> None:
        """Go on with these rows, without the last `dropped` tokens of each that the last pass added.

        Args:
            rows: ascending numbers.
            dropped: of each of them.
        """
        new, old = max(self._fed), self._width
        held = [self.held[row] + self._fed[row] - less for row, less in zip(rows, dropped, strict=True)]
        starts = [old - self.held[row] for row in rows]
        self._width += new
        if len(rows) < len(self.held) or any(dropped) or min(self._fed) < new:
            self._gather(rows, starts, held)
        self.held = held

    def _gather(self, rows: Sequence[int], starts: Sequence[int], held: Sequence[int]) -> None:
        """Move what is kept of each row to the last columns of a cache no wider than needed."""
        total, width = self._width, max(held)
        device = self._model.device
        chosen = torch.tensor(rows, device=device)
        shift = torch.tensor([start + have - width for start, have in zip(starts, held, strict=True)], device=device)
        for layer in self._cache.layers:
            seen = min(width, layer.sliding_window - 1) if layer.is_sliding else width
            before = total - layer.keys.shape[-2]  # columns that a sliding window has left behind
            columns = torch.arange(width - seen, width, device=device) + shift[:, None] - before
            columns = columns.clamp(min=0)  # what lies left of a row's first token is never looked at
            layer.keys, layer.values = (
                each.transpose(1, 2)[chosen[:, None], columns].transpose(1, 2) for each in (layer.keys, layer.values)
            )
            if layer.is_sliding:
                layer.cumulative_length = width
        self._width = width


@torch.no_grad()
def alone(model: Any, tokens: Sequence[int]) -> torch.Tensor:
    """The logits after a sequence computed by itself, [vocabulary]: they depend on nothing but it and the weights."""
    ids = torch.tensor([list(tokens)], device=model.device)
    with _only(model.get_output_embeddings(), torch.tensor([len(tokens) - 1], device=model.device)):
        return model(input_ids=ids, use_cache=False).logits[0, 0]


@contextmanager
def _only(head: Any, places: torch.Tensor) -> Iterator[None]:
    """Let the output layer see these positions of the flattened batch only: [1, N, hidden]."""

    def before(module: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        return (args[0].reshape(-1, args[0].shape[-1])[places][None], *args[1:])

    handle = head.register_forward_pre_hook(before)
    try:
        yield
    finally:
        handle.remove()
