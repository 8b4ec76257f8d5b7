"""A cache of tensors that knows how large they are, for work that goes round and round over the same keys."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")
# Bytes that an entry takes beside its numbers: a study of many densities keeps many small ones.
_ROW = 2048


@dataclass
class _Row:
    value: Any
    size: int
    round: int


class Memo:
    """Remembers what is expensive to make, up to a number of bytes.

    Drops the least recently used first, but nothing used in this round or the last: every round asks for every
    tensor in the same order, so with too small a budget a plain least-recently-used cache would drop each entry
    just before it is asked for again. What finds no room is not kept.

    Args:
        budget: bytes of tensors to keep at most.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.used = budget, 0
        self._round = 0
        self._rows: OrderedDict[Hashable, _Row] = OrderedDict()

    def next_round(self) -> None:
        """Says that the same keys may be asked for once more."""
        self._round += 1

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is remembered under the key, else what `make` gives."""
        if key in self._rows:
            self._rows.move_to_end(key)
            row = self._rows[key]
            row.round = self._round
            found: T = row.value
            return found
        made = make()
        size = _size(made) + _ROW
        if self._make_room(size):
            self._rows[key] = _Row(made, size, self._round)
            self.used += size
        return made

    def _make_room(self, size: int) -> bool:
        """Whether there is, or could be made, room for that many bytes."""
        while self.used + size > self.budget:
            oldest = next(iter(self._rows.values()), None)
            if oldest is None or oldest.round >= self._round - 1 or size > self.budget:
                return False
            self._rows.popitem(last=False)
            self.used -= oldest.size
        return True


def _size(state: Any) -> int:
    """Bytes of the tensors in nested containers."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(_size(value) for value in state.values())
    if is_dataclass(state):
        return sum(_size(getattr(state, field.name)) for field in fields(state))
    return sum(_size(value) for value in state) if isinstance(state, tuple | list) else 0
