"""How much is computed at once: batches by padded positions, sized from free memory, halved when memory runs out."""

import gc
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import psutil
import torch

logger = logging.getLogger(__name__)

T = TypeVar("T")

_LEAST, _MOST_ON_CPU, _MOST_ON_DEVICE = 512, 2048, 65536
_ENOUGH_ON_CPU, _ENOUGH_ON_DEVICE = 256, 8192  # positions that keep the device busy
_ALIKE = 0.9  # shorter rows than this part of the longest go into the next batch, if they need not
_SHARE = 0.4  # of the free memory: allocators fragment, and others compute beside this process


class Budget:
    """The most padded positions (rows times the longest of them) and the most rows of one forward pass.

    It belongs to a live model: what running out of memory taught one kind of request, the others know too. The
    batches follow from the rows and the budget alone, so the same rows are batched the same way again and again.

    Args:
        model: the live model; its dimensions and the free memory of its device give the size.
        device: where it computes (`cpu`, `cuda:0`).
        most_rows: the most rows at once, and no bound on positions until memory runs out; None: positions bound it.

    Attributes:
        tokens: padded positions of a forward pass; infinite where `most_rows` alone counts.
        most_rows: as given.
    """

    def __init__(self, model: Any, device: Any, most_rows: int | None) -> None:
        self.device = torch.device(device)
        self.most_rows = most_rows
        self._enough = _ENOUGH_ON_DEVICE if self.device.type == "cuda" else _ENOUGH_ON_CPU
        self.tokens: float = math.inf if most_rows else _positions(model, self.device)
        self._angles = rotary_angles(model.config)

    def run(self, rows: Sequence[T], length: Callable[[T], int], do: Callable[[Sequence[T]], None]) -> None:
        """Call `do` with all rows in their order, in batches that fit; halve and try again when memory runs out.

        Args:
            rows: longest first, so that a shortage shows at once and padding stays small.
            length: positions of a row, those it will come to hold included (generation).
            do: computes a batch. It is called again with a part of the same rows if it ran out of memory, so it
                must store its results last.

        Raises:
            MemoryError: one row alone does not fit.
        """
        start = 0
        while start < len(rows):
            batch = rows[start : self._end(rows, start, length)]
            if _fits(do, batch):
                start += len(batch)
                continue
            _free(self.device)
            positions = len(batch) * max(map(length, batch))
            if len(batch) == 1:
                raise MemoryError(f"a sequence of {positions} positions does not fit in the memory of {self.device}")
            self.tokens = positions // 2
            logger.warning(
                "out of memory at %d positions; at most %d from now on",
                positions,
                self.tokens,
                extra={"action": "lm.budget_halved"},
            )

    def batches(self, rows: Sequence[T], length: Callable[[T], int]) -> Iterator[Sequence[T]]:
        """The batches that `run` would make of these rows, for work that cannot be done again in part."""
        start = 0
        while start < len(rows):
            end = self._end(rows, start, length)
            yield rows[start:end]
            start = end

    def _end(self, rows: Sequence[T], start: int, length: Callable[[T], int]) -> int:
        """Where the batch that begins at `start` ends: it has at least one row."""
        longest = 0
        for end in range(start, len(rows)):
            here, count = length(rows[end]), end - start
            if count and (count == self.most_rows or (count + 1) * max(longest, here) > self.tokens):
                return end
            if count and self._angles(here) != self._angles(longest):
                return end
            if count * longest >= self._enough and here < _ALIKE * longest:  # padding would cost more than a pass
                return end
            longest = max(longest, here)
        return len(rows)


def rotary_angles(config: Any) -> Callable[[int], int]:
    """By which angles a row of that length is rotated; rows of other angles must not share a batch.

    Some models choose one set of angles for a whole batch, by its longest row: a short row beside a long one would
    have another score than alone. `longrope` has two sets, `dynamic` one for each length beyond what it was trained on.
    """
    text = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [each for each in (rope, *rope.values()) if isinstance(each, dict) and "rope_type" in each]
    switches = [each["original_max_position_embeddings"] for each in kinds if each["rope_type"] == "longrope"]
    grows = any(each["rope_type"] == "dynamic" for each in kinds)
    return lambda length: (
        (max(length, text.max_position_embeddings) if grows else 0) + sum(length > switch for switch in switches)
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether the error says that memory ran out, on a device or on the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and ("can't allocate memory" in str(error) or "DefaultCPU" in str(error))


def _fits(do: Callable[[Sequence[T]], None], batch: Sequence[T]) -> bool:
    # the error holds the frames, and these the tensors: it must be gone before memory is freed
    try:
        do(batch)
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        return False
    return True


def _free(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _positions(model: Any, device: torch.device) -> int:
    """Positions that fit in the free memory: a power of two, so that small changes of it change no batch."""
    config = model.config.get_text_config()
    hidden, layers = _dimension(config, "hidden_size"), _dimension(config, "num_hidden_layers")
    inner = max(_dimension(config, "intermediate_size"), 4 * hidden)
    size = next(model.parameters()).element_size()
    # residual, normed, projections and their outputs; the inner layer thrice; keys and values of all layers
    each = size * (16 * hidden + 3 * inner + 2 * layers * hidden)
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    most = _MOST_ON_DEVICE if device.type == "cuda" else _MOST_ON_CPU
    fitting = max(1, int(free * _SHARE / each))
    return min(most, max(_LEAST, 1 << (fitting.bit_length() - 1)))


def _dimension(config: Any, name: str) -> int:
    return int(getattr(config, name, None) or 1024)


def chunks(total: int, width: int, device: torch.device) -> Iterator[slice]:
    """Slices of `total` rows of `width` numbers (a vocabulary), so small that they cost no memory worth counting."""
    rows = max(1, (1 << (26 if device.type == "cuda" else 22)) // width)
    for start in range(0, total, rows):
        yield slice(start, min(total, start + rows))
