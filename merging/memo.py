"""A cache of tensors that knows how large they are and drops the least recently used ones."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


class Memo:
    """Remembers what is expensive to make, up to a number of bytes.

    Args:
        budget: bytes of tensors to keep at most; 0 keeps nothing.
    """

    def __init__(self, budget: int) -> None:
        self.budget, self.used = budget, 0
        self._rows: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """What is remembered under the key, else what `make` gives."""
        if key in self._rows:
            self._rows.move_to_end(key)
            found: T = self._rows[key][0]
            return found
        made = make()
        size = _size(made)
        if size <= self.budget:
            self._rows[key] = made, size
            self.used += size
            while self.used > self.budget:
                self.used -= self._rows.popitem(last=False)[1][1]
        return made


def _size(state: Any) -> int:
    """Bytes of the tensors in nested containers."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        return sum(_size(value) for value in state.values())
    return sum(_size(value) for value in state) if isinstance(state, tuple | list) else 0
