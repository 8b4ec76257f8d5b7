"""What may be an expert: a full checkpoint, a LoRA, LoRAs trained one on top of the other, a compressed delta.

All but the first are kept as they lie on the disk, and a tensor is made from the base's when it is asked for: there is
never a merged copy of the model.
"""

from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from merging.adapters.chain import chain, open_chain
from merging.adapters.config import CONFIG
from merging.adapters.opening import Adapter
from merging.checkpoint import INDEX, SINGLE, Checkpoint
from merging.codecs.contract import Packed
from merging.codecs.folder import PAYLOAD, read
from merging.codecs.record import RECORD
from merging.codecs.size import payload_bytes
from merging.errors import InvalidModel
from merging.fingerprint import FingerprintCache, NonFinite, fingerprint
from merging.shard import Entry, Shard

_MOST_STEPS = 64


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


def open_expert(path: Path, key: str, base: Checkpoint, cache: FingerprintCache | None = None) -> Expert:
    """Opens whatever lies in the folder.

    Args:
        key: where it is named, for messages.
        base: the base of the same study.
        cache: remembers the base's fingerprint, which a compressed delta names.

    Raises:
        InvalidModel: it is nothing that can be an expert of this base.
    """
    if not path.is_dir() or (path / SINGLE).exists() or (path / INDEX).exists():
        return Checkpoint(path, key)
    if (path / CONFIG).exists():
        adapter = Adapter(path, base, key)
        return DeltaExpert(path, key, base, adapter.deltas, adapter.fingerprint)
    if (path / RECORD).exists():
        return _compressed(path, key, base, cache)
    if steps := _steps(path):
        adapters = open_chain(steps, base, [f"{key} ({step.name})" for step in steps])
        return DeltaExpert(path, key, base, chain([each.deltas for each in adapters]), _content_of(adapters))
    return Checkpoint(path, key)


def _compressed(path: Path, key: str, base: Checkpoint, cache: FingerprintCache | None) -> DeltaExpert:
    found = read(path, key)
    if found.record.base != base.fingerprint(cache):
        problem = f"was compressed against another base (its fingerprint is {found.record.base})"
        raise InvalidModel(key, str(path), problem, "give that base, or compress the expert again")
    odd = set(found.tensors) ^ set(base.names)
    if odd:
        raise InvalidModel(key, str(path), f"and the base do not both have {min(odd)}", "compress the expert again")

    def content(cache: FingerprintCache | None) -> str:
        stat = (path / PAYLOAD).stat()
        known = f"{(path / PAYLOAD).resolve()}|{stat.st_size}:{stat.st_mtime_ns}"
        digest = cache.get(known) if cache is not None else None
        if digest is None:
            both = _bytes_digest(path, key).encode() + (path / RECORD).read_bytes()
            digest = blake2b(both, digest_size=16).hexdigest()
            if cache is not None:
                cache.put(known, digest)
        return digest

    return DeltaExpert(path, key, base, found.tensors, content)


def _bytes_digest(path: Path, key: str) -> str:
    shard = Shard(path / PAYLOAD, key)
    try:
        return fingerprint((name, shard.tensor(name), shard.bytes(name)) for name in shard.entries)
    except NonFinite as error:
        raise InvalidModel(key, str(path), f"has NaN or infinity in {error}", "compress the expert again") from error


def _content_of(adapters: Sequence[Adapter]) -> Callable[[FingerprintCache | None], str]:
    return lambda cache: " ".join(adapter.fingerprint(cache) for adapter in adapters)


def _steps(path: Path) -> list[Path]:
    """The numbered folders of a chain, in order; none if it is no chain."""
    numbered = sorted((each for each in path.iterdir() if each.name.isdigit()), key=lambda each: int(each.name))
    return [each for each in numbered if (each / CONFIG).exists()][:_MOST_STEPS]
