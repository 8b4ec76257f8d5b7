"""One forward pass over packed rows, and log-probabilities only where a target is."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from evaluation.lm.budget import chunks
from evaluation.lm.tree import Row

_TELLING = 100.0  # a logit that no soft cap leaves as it is, in any precision


@dataclass(frozen=True)
class Read:
    """What the model says of a batch's targets, in the order of the rows and of their targets; on the host.

    Attributes:
        logprobs: [M] in the dtype of the log-softmax.
        greedy: [M] whether the target is the likeliest token.
    """

    logprobs: torch.Tensor
    greedy: torch.Tensor


class Reader:
    """Reads a live model, whose weights may change between two calls.

    The model's output layer sees the wanted positions only, so that what the model does behind it (soft caps, scales)
    still applies, and no tensor of [batch, positions, vocabulary] exists. Where it does nothing behind it, the wanted
    positions go through in chunks.
    """

    def __init__(self, model: Any, softmax_dtype: torch.dtype | None = None) -> None:
        self._model = model
        self._head = model.get_output_embeddings()
        self._softmax_dtype = softmax_dtype
        self._bare: bool | None = None  # whether logits are just what the output layer gives; None: no weights told yet

    @torch.no_grad()
    def read(self, rows: Sequence[Row], greedy: bool = True) -> Read:
        """Compute the rows in one forward pass; rows with branches must not be together with plain ones.

        Args:
            greedy: whether to find out if targets are greedy; else all are said not to be.

        Raises:
            torch.OutOfMemoryError, RuntimeError, MemoryError: the rows are too many.
        """
        width = max(map(len, rows))
        wanted, which = np.unique(
            np.concatenate([row.places + number * width for number, row in enumerate(rows)]), return_inverse=True
        )
        order = np.argsort(which, kind="stable")  # so that a chunk of positions has its targets together
        which = which[order]
        targets = self._move(np.concatenate([row.targets for row in rows])[order].astype(np.int64))
        found = []
        for part, logits in self._logits(rows, width, self._move(wanted.astype(np.int64))):
            low, high = np.searchsorted(which, [part.start, part.stop])
            found.append(self._judge(logits, self._move(which[low:high] - part.start), targets[low:high], greedy))
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        return Read(*(torch.cat(column).cpu()[back] for column in zip(*found, strict=True)))

    def _judge(
        self, logits: torch.Tensor, which: torch.Tensor, targets: torch.Tensor, greedy: bool
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of the targets [m] at places `which` [m] of logits [n, V], and whether they are greedy."""
        logprobs = F.log_softmax(logits, dim=-1, dtype=self._softmax_dtype)
        found = logprobs[which, targets]
        if not greedy:
            return found, torch.zeros_like(targets, dtype=torch.bool)
        return found, logprobs.argmax(dim=-1)[which] == targets

    def _logits(self, rows: Sequence[Row], width: int, wanted: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
        """Logits [n, V] of the wanted positions [N] of the flattened batch, a chunk at a time."""
        whole = slice(0, len(wanted))
        parts = list(chunks(len(wanted), self._model.config.get_text_config().vocab_size, wanted.device))
        first = parts[0] if len(parts) > 1 and self._is_bare() else whole
        inputs = self._inputs(rows, width)
        with self._gathering(wanted, first) as kept:
            logits = self._model(**inputs, use_cache=False).logits
        if not kept:  # the model does not call its output layer
            yield whole, logits.flatten(0, 1)[wanted]
            return
        yield first, logits[0]
        if first != whole:
            for part in parts[1:]:
                yield part, self._head(kept[0][:, part])[0].to(logits.dtype)

    def _is_bare(self) -> bool:
        """Whether nothing follows the output layer; asked again until a candidate's weights tell."""
        if self._bare is None:
            self._bare = self._head is not None and self._passes_unchanged()
        return bool(self._bare)

    def _passes_unchanged(self) -> bool | None:
        """Whether large logits leave the model as its output layer gives them; None: these weights give none."""
        given: list[torch.Tensor] = []

        def enlarge(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            hidden = args[0] * (_TELLING / module.forward(args[0]).abs().amax())
            given.append(module.forward(hidden))
            return (hidden, *args[1:])

        handle = self._head.register_forward_pre_hook(enlarge)
        try:
            # more than one token: a padding token's states are zero
            logits = self._model(input_ids=self._move(np.arange(4)[None]), use_cache=False).logits
        finally:
            handle.remove()
        if not given:
            return False
        if not given[0].isfinite().all() or given[0].abs().amax() < 1:
            return None
        return torch.equal(given[0].to(logits.dtype), logits)

    @contextmanager
    def _gathering(self, wanted: torch.Tensor, first: slice) -> Iterator[list[torch.Tensor]]:
        """The output layer sees the first of the wanted positions only; all of them [1, N, H] are kept in the list."""
        kept: list[torch.Tensor] = []

        def gather(module: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
            kept.append(args[0].flatten(0, 1)[wanted][None])
            return (kept[0][:, first], *args[1:])

        handle = self._head.register_forward_pre_hook(gather) if self._head is not None else None
        try:
            yield kept
        finally:
            if handle:
                handle.remove()

    def _inputs(self, rows: Sequence[Row], width: int) -> dict[str, torch.Tensor]:
        """What the model is called with: stock's call for plain rows, padded on the right; a mask for branched ones."""
        tokens = _padded([row.tokens for row in rows], width, 0)
        if not rows[0].branched:
            return {"input_ids": self._move(tokens)}
        places = np.arange(width)
        ends = self._move(np.where(places < _lengths(rows), _padded([row.ends for row in rows], width, 0), places + 1))
        index = self._move(places)
        seen = (index[None, :, None] >= index) & (index[None, :, None] < ends[:, None, :])  # [B, T, T]
        dtype = self._model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
        depths = _padded([row.depths for row in rows], width, 0)
        return {"input_ids": self._move(tokens), "position_ids": self._move(depths), "attention_mask": mask[:, None]}

    def _move(self, array: npt.NDArray[Any]) -> torch.Tensor:
        """To the model's device; from pinned memory, so that the host need not wait."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self._model.device.type != "cuda":
            return tensor
        return tensor.pin_memory().to(self._model.device, non_blocking=True)


def _padded(arrays: Sequence[npt.NDArray[Any]], width: int, fill: int) -> npt.NDArray[np.int64]:
    padded = np.full((len(arrays), width), fill, np.int64)
    for row, array in zip(padded, arrays, strict=True):
        row[: len(array)] = array
    return padded


def _lengths(rows: Sequence[Row]) -> npt.NDArray[np.int64]:
    return np.array([[len(row)] for row in rows])


def summed(rows: Sequence[Row], read: Read) -> dict[int, tuple[float, bool]]:
    """Each query's log-likelihood, in the precision of the logits as in lm-eval, and whether all of it is greedy."""
    owners = np.concatenate([row.owners for row in rows])
    starts = np.flatnonzero(np.diff(owners, prepend=-1))
    # sums in double precision do not depend on their order, so nor on the batch
    sums = torch.from_numpy(np.add.reduceat(read.logprobs.double().numpy(), starts)).to(read.logprobs.dtype)
    greedy = np.logical_and.reduceat(read.greedy.numpy(), starts)
    return {int(owners[s]): (v, bool(g)) for s, v, g in zip(starts, sums.tolist(), greedy, strict=True)}
