"""A base and its experts, opened together and known to fit together."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from merging.checkpoint import Checkpoint, tie_flag
from merging.errors import InvalidModel
from merging.fingerprint import FingerprintCache
from merging.layers import Layout, layout
from merging.methods.contract import TensorContext


class Stack(NamedTuple):
    """One tensor in every model: the base's and the experts', in the order of `ModelSet.names`."""

    base: Tensor
    experts: Sequence[Tensor]


class ModelSet:
    """The models of a study. Tensors are views of the mapped files: opening costs no memory and reads no numbers.

    Attributes:
        base: the common ancestor.
        experts: by name, sorted: floating-point sums run in this order, so the same merge has the same bits
            however a study listed its experts.
        layout: what each tensor is.
    """

    def __init__(self, base: Checkpoint, experts: Mapping[str, Checkpoint], cache: FingerprintCache | None) -> None:
        self.base, self.experts = base, dict(sorted(experts.items()))
        self.layout: Layout = layout(base.names, base.config)
        self._cache = cache

    @classmethod
    def open(
        cls,
        base: Path,
        experts: Mapping[str, Path],
        *,
        base_key: str = "models.base",
        expert_keys: Sequence[str] | None = None,
        cache: FingerprintCache | None = None,
    ) -> "ModelSet":
        """Opens and compares the models.

        Args:
            base, experts: their folders.
            base_key, expert_keys: where they are named, for messages; experts in the order of `experts`, by
                default `models.experts[0]`, `models.experts[1]` …
            cache: remembers content fingerprints.

        Raises:
            InvalidModel: one cannot be read, or does not have the base's tensors and shapes.
        """
        keys = expert_keys or [f"models.experts[{i}]" for i in range(len(experts))]
        ancestor = Checkpoint(base, base_key)
        opened = {}
        for (name, path), key in zip(experts.items(), keys, strict=True):
            opened[name] = Checkpoint(path, key)
            _check_fits(opened[name], ancestor)
        return cls(ancestor, opened, cache)

    @property
    def names(self) -> tuple[str, ...]:
        """The experts' names: the order of every stack, weight and coefficient."""
        return tuple(self.experts)

    @cached_property
    def fingerprints(self) -> Mapping[str, str]:
        """Content fingerprints, under "base" and "expert:<name>"; the first use reads every byte.

        Raises:
            InvalidModel: a model holds NaN or infinity.
        """
        found = {"base": self.base.fingerprint(self._cache)}
        return found | {f"expert:{name}": expert.fingerprint(self._cache) for name, expert in self.experts.items()}

    def stack(self, name: str) -> Stack:
        """One tensor of every model, as views of the files [*shape]; do not write to them."""
        return Stack(self.base.tensor(name), [expert.tensor(name) for expert in self.experts.values()])

    def context(self, name: str, seed: int) -> TensorContext:
        """What methods that draw at random key their draws by."""
        return TensorContext(name, seed, tuple(self.fingerprints[f"expert:{e}"] for e in self.experts))


def _check_fits(expert: Checkpoint, base: Checkpoint) -> None:
    """Raises InvalidModel unless both have the same tensors, shapes and kinds of numbers."""
    mine, theirs = set(expert.names), set(base.names)
    if mine != theirs:
        name = min(mine ^ theirs)
        problem = f"has the tensor {name}, which the base lacks" if name in mine else f"lacks the base's tensor {name}"
        remedy = "use fine-tunes of this base, saved as full checkpoints"
        here, there = tie_flag(expert.config), tie_flag(base.config)
        if here != there:
            problem += f" (tie_word_embeddings is {here} here and {there} in the base)"
            remedy = "save both with the same tie_word_embeddings"
        raise InvalidModel(expert.key, str(expert.path), problem, remedy)
    for name in base.names:
        _check_tensor(name, expert, base)


def _check_tensor(name: str, expert: Checkpoint, base: Checkpoint) -> None:
    mine, theirs = expert.entry(name), base.entry(name)
    if mine.shape != theirs.shape:
        problem = f"has {name} of shape {list(mine.shape)} where the base has {list(theirs.shape)}"
        remedy = "use fine-tunes of this base"
        if mine.shape[1:] == theirs.shape[1:] and expert.config.get("vocab_size") != base.config.get("vocab_size"):
            remedy = "the vocabularies differ: resize_token_embeddings() one of them and save it again"
        raise InvalidModel(expert.key, str(expert.path), problem, remedy)
    if mine.dtype.is_floating_point != theirs.dtype.is_floating_point:
        problem = f"stores {name} as {mine.dtype} where the base has {theirs.dtype}"
        raise InvalidModel(expert.key, str(expert.path), problem, "save both in floating point")
