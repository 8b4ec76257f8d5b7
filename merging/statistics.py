"""Figures of the models that methods ask for, made when first asked for and kept for every trial of the study.

Inner products, magnitude histograms, the cuts that a density stands for, ranks. None of them depends on weights, so a
candidate with new weights reads no delta twice; a new density costs one look at the elements near its cut.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal, TypeVar

import torch
from torch import Tensor

from merging import kernel
from merging.arrangement import Part
from merging.kernel.program import Cut, Keep
from merging.kernel.select import MODEL_BIN_BITS
from merging.memo import Memo
from merging.methods.contract import Over, Scope
from merging.models import Stack

T = TypeVar("T")
Source = tuple[str, tuple[str, ...]]  # the base's and the experts' tensors of a part
# Elements whose products (T+1)² are held at a time. Fixed, and summed along the last axis, which torch never splits
# between threads: a Gram matrix has the same bits on any number of them.
_GRAM_CHUNK = 1 << 13
_INFINITY = 0x7F800000  # its bits
_ALL = -1  # a share of equal magnitudes: every one
_TINY = 1e-7  # a sum of magnitudes below this is no scale


class ModelStatistics:
    """The figures of one model set.

    Args:
        stack: where a part's tensors come from.
        whole: the parts of the models as they are (slices repeat or leave out layers; ranks within the model do not).
        memo: keeps what was made.

    Attributes:
        arranged: the parts of the result, which its layers are made of.
    """

    def __init__(self, stack: Callable[[Part], Stack], whole: Sequence[Part], memo: Memo) -> None:
        self.stack, self.memo = stack, memo
        self.arranged = self._whole = whole
        self._place = lru_cache(maxsize=1 << 10)(self._find)  # all tensors of a candidate ask for the same few
        self._small: dict[Hashable, Tensor] = {}  # kept whatever the memo's budget: a whole pass made each of them

    def of(self, part: Part) -> "TensorStatistics":
        """The figures of one tensor."""
        return TensorStatistics(self, part)

    def gram(self, over: Literal["layer", "model"], part: Part) -> Tensor:
        """Inner products summed over all tensors of the part's layer in the result, or of the model."""
        if over == "model":
            fitting = self._floats
        else:
            here = [other for other in self.arranged if other.place.layer == part.place.layer]
            fitting = [other for other in here if self.stack(other).base.is_floating_point()]
        key = ("gram", tuple((other.base, other.experts) for other in fitting))
        return self.once(key, lambda: torch.stack([self.of(other).gram("tensor") for other in fitting]).sum(0))

    def once(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What is small, and made once."""
        if key not in self._small:
            self._small[key] = make()
        return self._small[key]

    @cached_property
    def size(self) -> int:
        """Elements of one model."""
        return sum(self.stack(part).base.numel() for part in self._floats)

    def cut(self, part: Part, expert: int, count: int) -> Cut:
        """Where the `count` largest magnitudes of an expert's delta, anywhere in the model, end in one tensor.

        A histogram finds them to 0.05 % of a magnitude. Where that is too coarse, since many magnitudes are equal or
        nearly so, one more pass looks into the bin; of equal magnitudes those of the first tensors come first.
        """
        stack = self.stack(part)
        if count <= 0:
            return kernel.cut_at(_INFINITY, -1, stack.base.device)
        pattern, shares = self._place(expert, count)
        share = shares.get((part.base, part.experts), _ALL)
        if share > 0:
            last = kernel.place(stack.base, stack.experts[expert], pattern, share)
        else:
            last = self.size if share == _ALL else -1
        return kernel.cut_at(pattern, last, stack.base.device)

    def _find(self, expert: int, count: int) -> tuple[int, Mapping[Source, int]]:
        """The bits of the magnitude where the largest end, and how many equal to it each tensor keeps, if not all."""
        census = self.once(("census", expert), lambda: self._census(expert))
        upper, missing = kernel.kth_bin(census, count)
        if int(census[upper]) - missing <= count // 100:
            return upper << MODEL_BIN_BITS, {}
        table = self._members(expert, upper)
        lower, missing = kernel.kth_bin(table.sum(0), missing)
        shares = {}
        for part, equal in zip(self._floats, table[:, lower].tolist(), strict=True):
            if missing < equal:
                shares[part.base, part.experts] = max(missing, 0)
            missing -= equal
        return upper << MODEL_BIN_BITS | lower, shares

    def _members(self, expert: int, upper: int) -> Tensor:
        """Of each tensor, how many magnitudes of a bin there are by their lower bits: int64 [tensors, 2^11]."""
        tables = torch.zeros(len(self._floats), 1 << MODEL_BIN_BITS, dtype=torch.int64)
        for table, part in zip(tables, self._floats, strict=True):
            stack = self.stack(part)
            kernel.model_bin(stack.base, stack.experts[expert], upper, table)
        return tables

    def _census(self, expert: int) -> Tensor:
        counts = torch.zeros(1 << (31 - MODEL_BIN_BITS), dtype=torch.int64)
        for part in self._floats:
            stack = self.stack(part)
            kernel.model_histogram(stack.base, stack.experts[expert], counts)
        return counts

    @cached_property
    def _floats(self) -> list[Part]:
        return [part for part in self._whole if self.stack(part).base.is_floating_point()]


@dataclass(frozen=True)
class TensorStatistics:
    """The figures of one tensor: `merging.methods.contract.Statistics`."""

    models: ModelStatistics
    part: Part

    def base(self) -> Tensor:
        """The base's tensor."""
        return self._stack.base

    def gram(self, over: Over) -> Tensor:
        """Inner products of (θ_0, τ_1 … τ_T)."""
        if over in ("layer", "model"):
            return self.models.gram("layer" if over == "layer" else "model", self.part)
        if over == "tensor":
            return self.models.once((self.part.base, self.part.experts), lambda: gram_matrix(self._stack))
        make = row_gram_matrices if over == "row" else column_gram_matrices
        return self._kept("gram", over, make=lambda: make(self._stack))

    def population(self, scope: Scope) -> int:
        """How many elements a magnitude is ranked among."""
        if scope == "model":
            return self.models.size
        return self._width if scope == "row" else self._stack.base.numel()

    def cut(self, expert: int, count: int, scope: Scope) -> Cut:
        """Where the `count` largest magnitudes end."""
        if scope == "model":
            return self.models.cut(self.part, expert, count)
        return self._kept("cut", expert, count, scope, make=lambda: self._cut(expert, count, scope))

    def ranks(self, expert: int, scope: Literal["tensor", "row"]) -> Tensor:
        """Rank of each magnitude, ascending from 0."""
        base, other = self._pair(expert)
        width = self.population(scope)
        return self._kept("ranks", expert, width, make=lambda: kernel.ranks(base, other, width))

    def l1_factor(self, expert: int, keep: Keep) -> float:
        """Σ|τ| / Σ|kept τ|, 1 where either sum is next to nothing."""
        whole, kept = kernel.l1_sums(*self._pair(expert), keep)
        return 1.0 if whole < _TINY or kept < _TINY else whole / kept

    def _cut(self, expert: int, count: int, scope: Scope) -> Cut:
        base, other = self._pair(expert)
        if scope == "row":
            return kernel.cut(base, other, count, row_width=self._width)
        if base.numel() <= kernel.SMALL:
            return kernel.cut(base, other, count)
        counts = self._kept("histogram", expert, make=lambda: kernel.histogram(base, other))
        return kernel.cut(base, other, count, histogram=counts)

    def _pair(self, expert: int) -> tuple[Tensor, Tensor]:
        stack = self._stack
        return stack.base, stack.experts[expert]

    @cached_property
    def _stack(self) -> Stack:
        return self.models.stack(self.part)  # may be a copy of every model's tensor: once a merge

    @property
    def _width(self) -> int:
        shape = self._stack.base.shape
        return shape[-1] if shape else 1

    def _kept(self, *key: object, make: Callable[[], T]) -> T:
        return self.models.memo.get((self.part.base, self.part.experts, *key), make)


def gram_matrix(stack: Stack) -> Tensor:
    """Inner products of the flattened (θ_0, τ_1 … τ_T), τ_t = X_t − θ_0, float64 [T+1, T+1]."""
    base = stack.base.reshape(-1)
    experts = [expert.reshape(-1) for expert in stack.experts]
    size = len(experts) + 1
    total = torch.zeros((size, size), dtype=torch.float64, device=base.device)
    step = _GRAM_CHUNK if base.device.type == "cpu" else max(_GRAM_CHUNK, (1 << 26) // size**2)  # at most 0.5 GiB
    for first in range(0, base.numel(), step):
        part = slice(first, first + step)
        rows = _deltas(base[part], [expert[part] for expert in experts])
        total += (rows[:, None] * rows[None]).sum(-1)
    return total.cpu()


def row_gram_matrices(stack: Stack) -> Tensor:
    """Inner products for each slice along the first dimension, float64 [rows, T+1, T+1]."""
    rows = stack.base.shape[0] if stack.base.dim() > 1 else 1
    base = stack.base.reshape(rows, -1)
    experts = [expert.reshape(rows, -1) for expert in stack.experts]
    step = max(1, _GRAM_CHUNK * 16 // max(1, base.shape[1]))
    found = []
    for first in range(0, rows, step):
        part = slice(first, first + step)
        vectors = _deltas(base[part], [expert[part] for expert in experts])  # [T+1, rows, n]
        found.append(torch.einsum("irn,jrn->rij", vectors, vectors))
    return torch.cat(found).cpu()


def column_gram_matrices(stack: Stack) -> Tensor:
    """Inner products for each slice along the last dimension, float64 [columns, T+1, T+1]."""

    def turned(tensor: Tensor) -> Tensor:
        return tensor.movedim(-1, 0) if tensor.dim() > 1 else tensor.reshape(1, -1)

    return row_gram_matrices(Stack(turned(stack.base), [turned(expert) for expert in stack.experts]))


def _deltas(base: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """float64 (θ_0, τ_1 … τ_T)."""
    rows = torch.stack([base.double(), *(expert.double() for expert in experts)])
    rows[1:] -= rows[0]
    return rows
