"""Every stored tensor of an adapter finds its place in the base, with the right shape; else the adapter is refused."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import NoReturn

import torch

from merging.adapters.config import MERGE_IT, AdapterConfig
from merging.adapters.names import parse, places
from merging.checkpoint import Checkpoint, is_derived
from merging.errors import InvalidModel
from merging.roles import role, transposed
from merging.shard import Shard

_LINEAR, _TABLE, _NORMS = ("lora_A", "lora_B"), ("lora_embedding_A", "lora_embedding_B"), "lora_magnitude_vector"
_OTHER_BASE = "give the base that the adapter was trained on"


@dataclass(frozen=True)
class Part:
    """What an adapter holds for one tensor of its base.

    Attributes:
        tensor: the base's.
        sources: the adapter's tensors by what they are: `down`, `up` and for a DoRA `magnitude`; or `whole`.
        scale: what up · down is multiplied by.
        transposed: whether the base's tensor is stored [in, out].
    """

    tensor: str
    sources: Mapping[str, str]
    scale: float = 1.0
    transposed: bool = False


class Placing:
    """Sorts one adapter's tensors.

    Args:
        shard: the adapter's weights.
        config: its adapter_config.json.
        base: the checkpoint that it is for.
        key: where the adapter is named, for messages.
    """

    def __init__(self, shard: Shard, config: AdapterConfig, base: Checkpoint, key: str) -> None:
        self.shard, self.config, self.base, self._key = shard, config, base, key
        self._held = self._sorted()
        wanted = {self._tensor(owner): shape for owner in self._held if (shape := self._shape(owner)) is not None}
        self._places = places(wanted, base)

    def refuse(self, problem: str, remedy: str = _OTHER_BASE) -> NoReturn:
        """Raises InvalidModel with the adapter's key and path."""
        raise InvalidModel(self._key, str(self.shard.path.parent), problem, remedy)

    def parts(self) -> list[Part]:
        """What the adapter changes, in the order of the base's names; one tensor may come twice, if it is tied.

        Raises:
            InvalidModel: a tensor has no place, or not this shape; a factor or a trained bias is missing.
        """
        found = [self._part(*owner) for owner in self._held if owner[1] != "copy"]
        self._check_biases(found)
        return sorted(found, key=lambda part: (part.tensor, sorted(part.sources.values())))

    def copies(self) -> dict[str, str]:
        """The base's own tensors that the adapter holds a copy of: stored name by the base's."""
        return {self._placed(owner): held["copy"] for owner, held in self._held.items() if owner[1] == "copy"}

    def _sorted(self) -> dict[tuple[str, str], dict[str, str]]:
        """Stored names by kind, of each adapted module and of each tensor that is stored whole."""
        held: dict[tuple[str, str], dict[str, str]] = {}
        for name, entry in sorted(self.shard.entries.items()):
            stored = parse(name)
            if stored is None:
                self.refuse(f"stores {name}, which belongs to no variant of LoRA that is known here", MERGE_IT)
            if stored.kind == "whole" and is_derived(stored.module, entry.shape):
                continue
            owner = (stored.module, stored.kind if stored.kind in ("whole", "copy") else "lora")
            kinds = held.setdefault(owner, {})
            if stored.kind in kinds:
                self.refuse(f"stores {name} beside {kinds[stored.kind]}", "save one adapter into a folder of its own")
            if stored.kind != "whole" and not entry.dtype.is_floating_point:
                self.refuse(f"stores {name} as {entry.dtype}", "save it in floating point")
            kinds[stored.kind] = name
        return held

    def _tensor(self, owner: tuple[str, str]) -> str:
        """The name that the model's class has for the tensor."""
        return f"{owner[0]}.weight" if owner[1] == "lora" else owner[0]

    def _placed(self, owner: tuple[str, str]) -> str:
        name = self._tensor(owner)
        if name not in self._places:
            held = next(iter(self._held[owner].values()))
            self.refuse(f"stores {held}, but the base has no tensor {name}")
        return self._places[name]

    def _shape(self, owner: tuple[str, str]) -> tuple[int, ...] | None:
        """Of the tensor that is changed, [out, in] or [rows, width]; None where factors are no matrices."""
        held = self._held[owner]
        if owner[1] != "lora":
            return self.shard.entries[held[owner[1]]].shape
        down, up = self._factors(owner[0], held)
        a, b = self.shard.entries[down].shape, self.shard.entries[up].shape
        if len(a) != 2 or len(b) != 2:
            self.refuse(f"stores {down} {list(a)}, which is no matrix: a convolution's", MERGE_IT)
        return (a[1], b[0]) if down == held.get(_TABLE[0]) else (b[0], a[1])

    def _factors(self, module: str, held: Mapping[str, str]) -> tuple[str, str]:
        """The stored names of A and B."""
        given = set(held) - {_NORMS}
        if given not in (set(_LINEAR), set(_TABLE)) or self.config.dora != (_NORMS in held):
            says = "with DoRA" if self.config.dora else "without DoRA"
            problem = f"is a LoRA {says}, but holds {', '.join(sorted(held))} alone for {module}"
            self.refuse(problem, "copy or download the folder again")
        down, up = _LINEAR if _LINEAR[0] in held else _TABLE
        return held[down], held[up]

    def _part(self, owner_name: str, kind: str) -> Part:
        owner = (owner_name, kind)
        tensor, held = self._placed(owner), self._held[owner]
        shape, theirs = self._shape(owner), self.base.entry(tensor)
        if kind == "whole":
            if shape != theirs.shape:
                self._misfit(tensor, shape)
            if self.shard.entries[held["whole"]].dtype.is_floating_point != theirs.dtype.is_floating_point:
                self.refuse(f"stores {held['whole']} as another kind of number than the base", "save both alike")
            return Part(tensor, {"whole": held["whole"]})
        down, up = self._factors(owner_name, held)
        rank, width = self.config.rank_of(owner_name), self.shard.entries[up].shape
        if not self.shard.entries[down].shape[0] == width[1] == rank:
            problem = (
                f"stores {down} {list(self.shard.entries[down].shape)} and {up} {list(width)} for a rank of {rank}"
            )
            self.refuse(problem, "copy or download the folder again: its config and its weights are of two adapters")
        turned = self._turned(owner, tensor)
        sources = {"down": down, "up": up}
        if _NORMS in held:
            sources["magnitude"] = held[_NORMS]
            if self.shard.entries[held[_NORMS]].shape != (width[0],):
                self.refuse(f"stores {held[_NORMS]} of another shape than [{width[0]}]")
        return Part(tensor, sources, self.config.scale(owner_name), turned)

    def _turned(self, owner: tuple[str, str], tensor: str) -> bool:
        """Whether up · down [out, in] is the transpose of the base's tensor."""
        shape, theirs = self._shape(owner), self.base.entry(tensor).shape
        if _TABLE[0] in self._held[owner]:  # B A [width, rows] of a table [rows, width]
            if shape != theirs:
                self._misfit(tensor, shape)
            return True
        turned = transposed(tensor, self.base.config)
        if theirs == shape and not turned:
            return False
        if shape is None or theirs != shape[::-1] or not (turned or self.config.fan_in_fan_out):
            self._misfit(tensor, shape)
        return True

    def _misfit(self, tensor: str, shape: tuple[int, ...] | None) -> NoReturn:
        theirs = self.base.entry(tensor).shape
        problem = f"has {list(shape or ())} for {tensor}, where the base has {list(theirs)}"
        if role(tensor, theirs, self.base.config) == "embedding" and shape and shape[1:] == theirs[1:]:
            self.refuse(problem, "the vocabularies differ: resize_token_embeddings() the base as it was for training")
        self.refuse(problem)

    def _check_biases(self, parts: Collection[Part]) -> None:
        """Refuses an adapter that trained biases, but did not store them."""
        if self.config.bias == "none":
            return
        held = {part.tensor for part in parts if "whole" in part.sources}
        adapted = {part.tensor.removesuffix("weight") + "bias" for part in parts if "up" in part.sources}
        for name in self.base.names:
            if name.endswith("bias") and (self.config.bias == "all" or name in adapted) and name not in held:
                problem = f"trained biases (bias: {self.config.bias}), but does not store {name}"
                self.refuse(problem, "save it again with peft's save_pretrained()")


def same_numbers(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors are equal in the narrower of their formats."""
    narrow = min((left.dtype, right.dtype), key=lambda dtype: dtype.itemsize)
    return left.shape == right.shape and torch.equal(left.to(narrow), right.to(narrow))
