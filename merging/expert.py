"""What an expert is to a merge: a full checkpoint, or what it makes of the base's tensors.

The latter is kept as it lies on the disk, and a tensor is made from the base's when it is asked for: there is never a
merged copy of the model.
"""

from collections.abc import Callable, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from merging.checkpoint import Checkpoint
from merging.codecs.contract import Packed
from merging.codecs.size import payload_bytes
from merging.fingerprint import FingerprintCache
from merging.shard import Entry


class Expert(Protocol):
    """One expert, opened. `Checkpoint` is one.

    Attributes:
        path: its folder.
        key: where it is named (`models.experts[1]`), for messages.
        config: config.json of the model that it makes.
    """

    path: Path
    key: str
    config: dict[str, Any]

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor's name, sorted."""
        ...

    def entry(self, name: str) -> Entry:
        """The tensor's dtype and shape, and the bytes that it is kept in."""
        ...

    def tensor(self, name: str) -> Tensor:
        """The tensor; do not write to it."""
        ...

    def held(self, name: str) -> Tensor | Packed:
        """The tensor as it is kept."""
        ...

    def fingerprint(self, cache: FingerprintCache | None = None) -> str:
        """Content fingerprint, 32 hex digits. Raises InvalidModel if a tensor holds NaN or infinity."""
        ...


class DeltaExpert:
    """An expert that is kept as what it makes of the base's tensors: satisfies `Expert`.

    Args:
        base: the model it belongs to.
        deltas: the tensors that it changes.
        content: digest of its files.
        config: config.json of the model that it makes.
    """

    def __init__(
        self,
        path: Path,
        key: str,
        base: Checkpoint,
        deltas: Mapping[str, Packed],
        content: Callable[[FingerprintCache | None], str],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.path, self.key, self.config = path, key, dict(config or base.config)
        self._base, self._deltas, self._content = base, deltas, content

    @property
    def names(self) -> tuple[str, ...]:
        """The base's."""
        return self._base.names

    def entry(self, name: str) -> Entry:
        """As `Expert.entry`; a tensor that it does not change is the base's and takes no bytes."""
        before = self._base.entry(name)
        delta = self._deltas.get(name)
        if delta is None:
            return Entry(name, before.dtype, before.shape, 0, 0)
        whole = delta.payload.get("tensor")
        dtype = whole.dtype if whole is not None else before.dtype
        return Entry(name, dtype, delta.shape, 0, payload_bytes(delta))

    def tensor(self, name: str) -> Tensor:
        """As `Expert.tensor`: made from the base's, in float32 unless it is kept in its own dtype.

        Raises:
            InvalidModel: what it is kept in is damaged.
        """
        return unpacked(self.held(name), self._base.tensor(name))

    def held(self, name: str) -> Tensor | Packed:
        """As `Expert.held`."""
        return self._deltas[name] if name in self._deltas else self._base.tensor(name)

    def fingerprint(self, cache: FingerprintCache | None = None) -> str:
        """As `Expert.fingerprint`: of what it is kept in, and of the base."""
        return blake2b(f"{self._base.fingerprint(cache)} {self._content(cache)}".encode(), digest_size=16).hexdigest()


def unpacked(held: Tensor | Packed, base: Tensor) -> Tensor:
    """An expert's tensor from the way it is kept."""
    return held if isinstance(held, Tensor) else held.expert(base)
