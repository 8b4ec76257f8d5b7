"""A base and its experts, opened together and known to fit together."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from math import prod
from pathlib import Path
from typing import NamedTuple, overload

from torch import Tensor

from merging.checkpoint import Checkpoint, tie_flag
from merging.codecs.contract import Packed
from merging.companions import companions_digest
from merging.compressed import compressed
from merging.compression import Compression
from merging.errors import Conflict, InvalidModel
from merging.expert import Expert, unpacked
from merging.expertfolder import open_expert
from merging.fingerprint import FingerprintCache
from merging.layers import Layout, layout
from merging.shard import Entry
from merging.vocabulary.alignment import Alignment
from merging.vocabulary.choice import BASE
from merging.vocabulary.files import output_files
from merging.vocabulary.opening import align
from merging.vocabulary.rows import aligned_stack, vocabulary_axis


class Stack(NamedTuple):
    """One tensor in every model: the base's and the experts', in the order of `ModelSet.names`."""

    base: Tensor
    experts: Sequence[Tensor]


class Held(NamedTuple):
    """One tensor in every model, as each is kept; in the order of `ModelSet.names`."""

    base: Tensor
    experts: Sequence[Tensor | Packed]

    def stack(self) -> Stack:
        """The tensors themselves: those that are kept in another form are made now."""
        return Stack(self.base, [unpacked(expert, self.base) for expert in self.experts])

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Held":
        """The same elsewhere."""
        experts = [move(each) if isinstance(each, Tensor) else each.moved(move) for each in self.experts]
        return Held(move(self.base), experts)

    @property
    def plain(self) -> bool:
        """Whether every tensor is kept as itself."""
        return all(isinstance(expert, Tensor) for expert in self.experts)


class ModelSet:
    """The models of a study. Tensors are views of the mapped files: opening costs no memory and reads no numbers.

    Attributes:
        base: the common ancestor.
        experts: by name, sorted: floating-point sums run in this order, so the same merge has the same bits
            however a study listed its experts.
        layout: what each tensor is.
        tokenizer: whose vocabulary a merge has: `base`, `union`, or an expert's name.
        alignment: how the rows of differing vocabularies come together; None if they are the same in every model.
        compression: what the experts that are full checkpoints are kept by; None: they are kept as they are.

    A set whose experts are compressed knows the one that it was made of (`original`): an expert is the same to whatever
    goes by its content, such as the draws of DARE, in whichever form it is kept.
    """

    def __init__(
        self,
        base: Checkpoint,
        experts: Mapping[str, Expert],
        cache: FingerprintCache | None,
        tokenizer: str = BASE,
        alignment: Alignment | None = None,
        original: "ModelSet | None" = None,
        compression: Compression | None = None,
    ) -> None:
        self.base, self.experts = base, dict(sorted(experts.items()))
        self.layout: Layout = layout(base.names, base.config)
        self.tokenizer, self.alignment, self.compression = tokenizer, alignment, compression
        self._cache, self._original = cache, original

    @classmethod
    def open(
        cls,
        base: Path,
        experts: Mapping[str, Path],
        *,
        base_key: str = "models.base",
        expert_keys: Sequence[str] | None = None,
        cache: FingerprintCache | None = None,
        tokenizer: str = BASE,
        tokenizer_key: str = "tokenizer",
    ) -> "ModelSet":
        """Opens and compares the models.

        Args:
            base, experts: their folders.
            base_key, expert_keys: where they are named, for messages; experts in the order of `experts`, by
                default `models.experts[0]`, `models.experts[1]` …
            cache: remembers content fingerprints.
            tokenizer: whose vocabulary a merge has: `base`, `union`, or an expert's name.
            tokenizer_key: where that is named, for messages.

        Raises:
            InvalidModel: one cannot be read, does not have the base's tensors and shapes, or has a vocabulary that
                cannot be brought together with the others.
            InvalidRecipe: the tokenizer is that of no model.
        """
        keys = expert_keys or [f"models.experts[{i}]" for i in range(len(experts))]
        ancestor = Checkpoint(base, base_key)
        opened: dict[str, Expert] = {}
        for (name, path), key in zip(experts.items(), keys, strict=True):
            opened[name] = open_expert(path, key, ancestor, cache)
            _check_names(opened[name], ancestor)
        alignment = align(ancestor, opened, tokenizer, tokenizer_key)
        for expert in opened.values():
            for name in ancestor.names:
                _check_tensor(name, expert, ancestor, alignment)
        return cls(ancestor, opened, cache, tokenizer, alignment)

    def compressed(self, by: Compression | None, known: Mapping[str, str] | None = None) -> "ModelSet":
        """The same models with their experts packed, each once and for every process; None: these.

        Args:
            known: the fingerprints of the packed set, where it was packed before.

        Raises:
            InvalidModel: a model holds NaN or infinity.
            OutputError: there is no room for the packed experts.
            Conflict: they are not what they were when they were packed first.
        """
        if by is None:
            return self
        rows = frozenset(name for name in self.base.names if self.vocabulary_axis(name) is not None)
        packed = {name: compressed(self.base, each, by, rows, self._cache) for name, each in self.experts.items()}
        rest = (self.tokenizer, self.alignment, self, by.checked("compress"))
        found = ModelSet(self.base, packed, self._cache, *rest)
        if known is not None and known != found.fingerprints:
            remedy = "let MERGESEARCH_ARTEFACTS name one folder for all processes, and copy the packed experts there"
            raise Conflict(f"experts packed by {by.codec} here are not those that the study was made with; {remedy}")
        return found

    @property
    def packable(self) -> tuple[str, ...]:
        """The experts that are full checkpoints."""
        return tuple(name for name, expert in self.experts.items() if isinstance(expert, Checkpoint))

    @property
    def kept_bytes(self) -> int:
        """Bytes that base and experts take as they are kept."""
        return sum(self.bytes_of(name) for name in self.base.names)

    @property
    def base_bytes(self) -> int:
        """Bytes that the base takes."""
        return sum(_size(self.base.entry(name)) for name in self.base.names)

    def bytes_of(self, name: str) -> int:
        """Bytes that one tensor of base and experts takes as it is kept; rows of differing vocabularies are copied."""
        if self.vocabulary_axis(name) is not None:
            return prod(self.shape(name)) * self.base.entry(name).dtype.itemsize * (1 + len(self.experts))
        return sum(_size(source.entry(name)) for source in (self.base, *self.experts.values()))

    @property
    def names(self) -> tuple[str, ...]:
        """The experts' names: the order of every stack, weight and coefficient."""
        return tuple(self.experts)

    @property
    def folders(self) -> Mapping[str, Path]:
        """Each expert's folder by name, and the base's under the empty name."""
        return {"": self.base.path} | {name: expert.path for name, expert in self.experts.items()}

    @cached_property
    def fingerprints(self) -> Mapping[str, str]:
        """Content fingerprints, under "base" and "expert:<name>"; the first use reads every byte.

        Raises:
            InvalidModel: a model holds NaN or infinity.
        """
        found = {"base": self.base.fingerprint(self._cache)}
        found |= {f"expert:{name}": expert.fingerprint(self._cache) for name, expert in self.experts.items()}
        if self.alignment is None:
            return found
        rows = self.alignment.fingerprints()  # the same weights under other tokens are another merge
        return {key: blake2b(f"{mine}{rows[key]}".encode(), digest_size=16).hexdigest() for key, mine in found.items()}

    def held(self, name: str) -> Held:
        """One tensor of every model, as it is kept: as views of the files; do not write to them.

        Where vocabularies differ, embeddings and heads are copies with the rows of the result.
        """
        base = self.base.tensor(name)
        axis = self.vocabulary_axis(name)
        if axis is None or self.alignment is None:
            return Held(base, [expert.held(name) for expert in self.experts.values()])
        experts = [expert.tensor(name) for expert in self.experts.values()]
        indices = [self.alignment.experts[expert] for expert in self.experts]
        return Held(*aligned_stack(base, experts, self.alignment.base, indices, axis))

    def stack(self, name: str) -> Stack:
        """One tensor of every model [*shape]; do not write to them."""
        return self.held(name).stack()

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape in the result."""
        shape, axis = self.base.entry(name).shape, self.vocabulary_axis(name)
        if axis is None or self.alignment is None:
            return shape
        return (*shape[:axis], self.alignment.rows, *shape[axis + 1 :])

    def vocabulary_axis(self, name: str) -> int | None:
        """The dimension whose rows have to be brought together; None for all tensors but embeddings and heads."""
        if self.alignment is None:
            return None
        return vocabulary_axis(name, self.base.entry(name).shape, self.alignment.ancestor.rows)

    def companion_files(self) -> Mapping[str, bytes]:
        """What stands beside a merge's weights, but for config.json: the tokenizer and its companions."""
        folders = {name: expert.path for name, expert in self.experts.items()}
        return output_files(self.tokenizer, self.base.path, folders, self.alignment)

    @property
    def companions_digest(self) -> str:
        """Digest of config.json and the companions: with the fingerprints it says what a merge computes."""
        if self.tokenizer == BASE and self.alignment is None:
            return companions_digest(self.base.path)
        state = blake2b(companions_digest(self.base.path).encode(), digest_size=16)
        for name, content in sorted(self.companion_files().items()):
            if not name.startswith("LICENSE"):
                state.update(f"{name}:{len(content)}\n".encode() + content)
        return state.hexdigest()

    @property
    def expert_fingerprints(self) -> Sequence[str]:
        """The experts' content fingerprints as they are, in the order of `names`; computed when one is looked at."""
        return _Fingerprints(self._original or self)


def _size(entry: Entry) -> int:
    return entry.end - entry.start


class _Fingerprints(Sequence[str]):
    """Most methods never look at a fingerprint, and to know one is to read every byte."""

    def __init__(self, models: ModelSet) -> None:
        self._models = models

    def __len__(self) -> int:
        return len(self._models.names)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        found = self._models.fingerprints
        return [found[f"expert:{name}"] for name in self._models.names][index]


def _check_names(expert: Expert, base: Checkpoint) -> None:
    """Raises InvalidModel unless both have tensors of the same names."""
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


def _check_tensor(name: str, expert: Expert, base: Checkpoint, alignment: Alignment | None) -> None:
    mine, theirs = expert.entry(name), base.entry(name)
    axis = vocabulary_axis(name, theirs.shape, alignment.ancestor.rows) if alignment else None
    if axis is not None and len(mine.shape) == len(theirs.shape):
        same = all(a == b for i, (a, b) in enumerate(zip(mine.shape, theirs.shape, strict=True)) if i != axis)
    else:
        same = mine.shape == theirs.shape
    if not same:
        problem = f"has {name} of shape {list(mine.shape)} where the base has {list(theirs.shape)}"
        remedy = "use fine-tunes of this base"
        if mine.shape[1:] == theirs.shape[1:] and expert.config.get("vocab_size") != base.config.get("vocab_size"):
            remedy = "the vocabularies differ: resize_token_embeddings() one of them and save it again"
        raise InvalidModel(expert.key, str(expert.path), problem, remedy)
    if mine.dtype.is_floating_point != theirs.dtype.is_floating_point:
        problem = f"stores {name} as {mine.dtype} where the base has {theirs.dtype}"
        raise InvalidModel(expert.key, str(expert.path), problem, "save both in floating point")
