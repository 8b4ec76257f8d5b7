"""Opens whatever may be an expert: a full checkpoint, a LoRA, LoRAs on top of each other, a compressed delta.

A folder of numbered adapter folders (`1`, `2` …) is a chain: each was trained on the base as those before had left it.
"""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path

from merging.adapters.chain import chain, open_chain
from merging.adapters.config import CONFIG
from merging.adapters.opening import Adapter
from merging.checkpoint import INDEX, SINGLE, Checkpoint
from merging.codecs.folder import PAYLOAD, read
from merging.codecs.record import RECORD
from merging.errors import InvalidModel
from merging.expert import DeltaExpert, Expert
from merging.fingerprint import FingerprintCache, NonFinite, fingerprint
from merging.shard import Shard

_MOST_STEPS = 64


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
