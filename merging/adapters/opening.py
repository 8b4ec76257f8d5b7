"""A folder of peft, opened as an expert of a base: which tensors it changes, and how. Never unpickles.

Opening reads headers, and of the numbers only what has to equal others: copies of the base's own tensors, and the two
places of a tied embedding. The rest is read when it is asked for.
"""

from collections.abc import Collection, Mapping
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import torch
from torch import Tensor

from merging.adapters.config import CONFIG, AdapterConfig, read_config
from merging.adapters.dora import Dora
from merging.adapters.names import shared_tables
from merging.adapters.placing import Part, Placing, same_numbers
from merging.checkpoint import Checkpoint
from merging.codecs.contract import Packed
from merging.codecs.lowrank import LowRank
from merging.codecs.whole import Whole
from merging.errors import InvalidModel
from merging.fingerprint import FingerprintCache, NonFinite, fingerprint
from merging.shard import Shard

WEIGHTS = "adapter_model.safetensors"
_PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapter_model.pth")


class Adapter:
    """A LoRA of a base: what it makes of the base's tensors; all others it leaves alone.

    Args:
        path: the folder that peft's `save_pretrained` wrote.
        base: the checkpoint that it was trained on, or of which it was trained after other adapters.
        key: where it is named (`models.experts[1]`), for messages.
        changed: the base's tensors that other adapters had changed before this one was trained.

    Attributes:
        config: adapter_config.json.

    Raises:
        InvalidModel: missing, pickled, damaged, of a kind that is no fixed change of weights, or of another base.
    """

    def __init__(self, path: Path, base: Checkpoint, key: str = "adapter", changed: Collection[str] = ()) -> None:
        self.path, self.key = path, key
        self.config: AdapterConfig = read_config(path, key)
        self._shard = _shard(path, key)
        placing = Placing(self._shard, self.config, base, key)
        self._check_copies(placing, changed)
        self._parts = self._merged_twins(placing, shared_tables(base))

    @property
    def base_name(self) -> str | None:
        """Where its base is said to be: a path or the name of a repository."""
        return self.config.base_name

    @property
    def names(self) -> tuple[str, ...]:
        """The base's tensors that it changes, sorted."""
        return tuple(self._parts)

    @cached_property
    def deltas(self) -> Mapping[str, Packed]:
        """The changed tensors by the base's names; in their stored dtype, as far as scales allow."""
        return {name: self._packed(part) for name, part in self._parts.items()}

    def fingerprint(self, cache: FingerprintCache | None = None) -> str:
        """Content fingerprint, 32 hex digits, of what it computes: of tensors, scales and the way matrices lie.

        Raises:
            InvalidModel: a tensor holds NaN or infinity.
        """
        stats = [path.stat() for path in (self._shard.path, self.path / CONFIG)]
        key = "|".join([str(self.path.resolve()), *(f"{stat.st_size}:{stat.st_mtime_ns}" for stat in stats)])
        known = cache.get(key) if cache is not None else None
        if known:
            return known
        sources = {
            f"{part.tensor}:{kind}": name for part in self._parts.values() for kind, name in part.sources.items()
        }
        rows = ((label, self._shard.tensor(name), self._shard.bytes(name)) for label, name in sources.items())
        try:
            whole = blake2b(fingerprint(rows).encode(), digest_size=16)
        except NonFinite as error:
            problem = f"has NaN or infinity in tensor {sources[str(error)]}"
            raise InvalidModel(self.key, str(self.path), problem, "use an adapter that trained to the end") from error
        for part in self._parts.values():
            whole.update(f"{part.tensor}\0{part.scale!r}\0{part.transposed}\0".encode())
        if cache is not None:
            cache.put(key, whole.hexdigest())
        return whole.hexdigest()

    def _packed(self, part: Part) -> Packed:
        read = {kind: self._shard.tensor(name) for kind, name in part.sources.items()}
        if "whole" in read:
            return Whole(read["whole"])
        up, down = scaled(read["up"], read["down"], part.scale)
        if "magnitude" in read:
            return Dora(up, down, read["magnitude"], part.transposed)
        return LowRank(up, down, part.transposed)

    def _check_copies(self, placing: Placing, changed: Collection[str]) -> None:
        """Refuses an adapter that brings another tensor in place of the base's (peft stores embeddings it adapts)."""
        for tensor, stored in placing.copies().items():
            if tensor not in changed and not same_numbers(self._shard.tensor(stored), placing.base.tensor(tensor)):
                placing.refuse(f"was trained on another base: its {stored} differs from the base's {tensor}")

    def _merged_twins(self, placing: Placing, shared: Collection[str]) -> dict[str, Part]:
        """One part for each tensor; where base ties two tensors, both have to change alike."""
        found: dict[str, list[Part]] = {}
        for part in placing.parts():
            found.setdefault(part.tensor, []).append(part)
        for tensor, parts in found.items():
            alike = all(self._alike(parts[0], other) for other in parts[1:])
            if not alike or (tensor in shared and len(parts) == 1):
                problem = f"trained only one of two tensors that the base ties ({tensor}), or each in another way"
                remedy = "save the base with tie_word_embeddings false and a head of its own, and merge with that"
                placing.refuse(problem, remedy)
        return {tensor: parts[0] for tensor, parts in found.items()}

    def _alike(self, one: Part, other: Part) -> bool:
        """Whether two parts make the same of a tensor."""
        left, right = self._packed(one), self._packed(other)
        if isinstance(left, Whole) and isinstance(right, Whole):
            return torch.equal(left.tensor, right.tensor)
        if not isinstance(left, LowRank) or not isinstance(right, LowRank):
            return False
        return all(torch.equal(a, b) for a, b in zip(_as_stored(left), _as_stored(right), strict=True))


def scaled(up: Tensor, down: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Factors of scale · up · down: the smaller one is scaled in float32, and stays so unless its own dtype holds it.

    A scale that is a power of two, as most are, costs neither precision nor room.
    """
    if scale == 1.0:
        return up, down
    first = up.numel() <= down.numel()
    factor = up if first else down
    exact = factor.to(torch.promote_types(factor.dtype, torch.float32)) * scale
    narrow = exact.to(factor.dtype)
    held = narrow if torch.equal(narrow.to(exact.dtype), exact) else exact
    return (held, down) if first else (up, held)


def _as_stored(packed: LowRank) -> tuple[Tensor, Tensor]:
    """The two factors whose product is τ as the tensor is stored."""
    return (packed.down.mT, packed.up.mT) if packed.transposed else (packed.up, packed.down)


def _shard(path: Path, key: str) -> Shard:
    if (path / WEIGHTS).exists():
        return Shard(path / WEIGHTS, key)
    pickle = next((name for name in _PICKLES if (path / name).exists()), None)
    if pickle:
        remedy = "load it with peft and save_pretrained() it: that writes safetensors"
        raise InvalidModel(key, str(path), f"is a pickled adapter ({pickle})", remedy)
    remedy = "give the folder that peft's save_pretrained() wrote"
    raise InvalidModel(key, str(path), f"is a LoRA adapter without weights (no {WEIGHTS})", remedy)
