"""The fused passes in compiled code: the functions of `plain` and `plain_select`, called on raw memory."""

import ctypes
from collections.abc import Callable, Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from typing import Any

import torch
from torch import Tensor

from merging.kernel import program as records
from merging.kernel.competing import Contest
from merging.kernel.compile import NoKernel, compiled
from merging.kernel.draws import finalised
from merging.kernel.pieces import in_pieces
from merging.kernel.plain_select import SUM_BLOCK, rank_dtype

DTYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
_JOINS = {"sum": 0, "mean": 1, "elected_sum": 2, "elected_mean": 3}
_RULES = {"furthest": 0, "elected": 1, "shared": 2, "clamped": 3, "erased": 4, "alone": 5}
# Elements that the kernel treats at a time: pieces are multiples of it.
_BLOCK = 2048


class _Cut(Structure):
    _fields_ = (("value", c_void_p), ("index", c_void_p), ("width", c_int64))


class _Keep(Structure):
    _fields_ = (
        *(("expert", c_void_p), ("above", _Cut), ("below", _Cut), ("ranks", c_void_p), ("key", c_uint64)),
        *((name, c_float) for name in ("weight", "factor", "lowest", "step")),
        *((name, c_int32) for name in ("dtype", "drawn", "rescale", "rank_bytes")),
    )


class _Program(Structure):
    _fields_ = (
        *(("keeps", POINTER(_Keep)), ("experts", c_int32), ("join", c_int32)),
        *(("scale", c_float), ("divisor", c_float)),
    )


class _Pair(Structure):
    _fields_ = (("base", c_void_p), ("expert", c_void_p), ("base_dtype", c_int32), ("expert_dtype", c_int32))


class _Contest(Structure):
    _fields_ = (
        *((name, c_void_p) for name in ("experts", "dtypes", "weights", "factors", "mask")),
        *(("scale", c_float), ("bound", c_float)),
        *((name, c_int32) for name in ("count", "rule", "fewest")),
    )


class Native:
    """The loaded kernel. Its methods do what the functions of the same names in `plain`, `plain_competing` and
    `plain_select` do.

    Tensors are contiguous, on the CPU and of the dtypes in `DTYPES`.

    Raises:
        NoKernel: it cannot be compiled or loaded here.
    """

    def __init__(self) -> None:
        try:
            library = ctypes.CDLL(str(compiled()))
        except OSError as error:
            raise NoKernel(str(error)) from error
        pair, many, some = POINTER(_Pair), c_int64, c_int32
        out = (c_void_p, some, some, many, many)
        self._run = _function(library, "run", c_int32, POINTER(_Program), c_void_p, some, *out)
        told = (POINTER(_Contest), c_void_p, some)
        self._compete = _function(library, "compete", c_int32, *told, *out)
        self._count_changes = _function(library, "count_changes", None, *told, many, many, c_void_p)
        models = (POINTER(c_void_p), POINTER(c_int32), some, c_void_p, many, many)
        self._weighted_sum = _function(library, "weighted_sum", c_int32, *models, *out)
        self._tally = _function(library, "tally", None, pair, many, many, some, many, c_void_p)
        self._place = _function(library, "place", c_int64, pair, many, c_uint32, many)
        self._row_cuts = _function(library, "row_cuts", None, pair, many, many, many, many, c_void_p, c_void_p)
        self._ranks = _function(library, "ranks", None, pair, many, many, many, some, c_void_p)
        self._block_sums = _function(library, "block_sums", None, POINTER(_Keep), pair, many, many, many, c_void_p)

    def weighted_sum(self, out: Tensor, models: Sequence[Tensor], coefficients: Tensor, stored: torch.dtype) -> bool:
        """out = Σ c_i X_i."""
        table = coefficients.to(torch.float32).contiguous()
        rows = table.shape[1]
        pointers = (c_void_p * len(models))(*(model.data_ptr() for model in models))
        dtypes = (c_int32 * len(models))(*(DTYPES[model.dtype] for model in models))
        fixed = (pointers, dtypes, len(models), table.data_ptr(), rows, out.numel() // rows)
        target = (out.data_ptr(), DTYPES[out.dtype], DTYPES[stored])

        def work(first: int, last: int) -> bool:
            return bool(self._weighted_sum(*fixed, *target, first, last))

        return all(in_pieces(out.numel(), work, _BLOCK))

    def run(
        self, program: records.Program, out: Tensor, base: Tensor, experts: Sequence[Tensor], stored: torch.dtype
    ) -> bool:
        """Executes a program."""
        keeps = [_keep(keep, expert) for keep, expert in zip(program.keeps, experts, strict=True)]
        array = (_Keep * len(keeps))(*keeps)
        told = _Program(array, len(keeps), _JOINS[program.join], program.scale, program.divisor)
        fixed = (byref(told), base.data_ptr(), DTYPES[base.dtype], out.data_ptr(), DTYPES[out.dtype], DTYPES[stored])

        def work(first: int, last: int) -> bool:
            return bool(self._run(*fixed, first, last))

        return all(in_pieces(out.numel(), work, _BLOCK))

    def compete(
        self, contest: Contest, out: Tensor, base: Tensor, experts: Sequence[Tensor], stored: torch.dtype
    ) -> bool:
        """Executes a contest."""
        pointers = (c_void_p * len(experts))(*(expert.data_ptr() for expert in experts))
        dtypes = (c_int32 * len(experts))(*(DTYPES[expert.dtype] for expert in experts))
        weights, factors = ((c_float * len(experts))(*values) for values in (contest.weights, [1.0] * len(experts)))
        lists = (ctypes.addressof(values) for values in (pointers, dtypes, weights, factors))
        mask = None if contest.mask is None else contest.mask.data_ptr()
        numbers = (contest.scale, contest.bound, len(experts), _RULES[contest.rule], contest.fewest)
        told = _Contest(*lists, mask, *numbers)
        start = (byref(told), base.data_ptr(), DTYPES[base.dtype])
        if contest.rule == "alone":
            factors[:] = list(contest.factors(*self._changes(start, base.numel(), len(experts))))

        def work(first: int, last: int) -> bool:
            return bool(self._compete(*start, out.data_ptr(), DTYPES[out.dtype], DTYPES[stored], first, last))

        return all(in_pieces(out.numel(), work, _BLOCK))

    def _changes(self, start: tuple[Any, ...], size: int, experts: int) -> list[list[int]]:
        """How many elements each expert changed, and how many it alone did."""

        def work(first: int, last: int) -> Tensor:
            counts = torch.zeros((2, experts), dtype=torch.int64)
            self._count_changes(*start, first, last, counts.data_ptr())
            return counts

        found: list[list[int]] = torch.stack(in_pieces(size, work, _BLOCK)).sum(0).tolist()
        return found

    def tally(self, base: Tensor, expert: Tensor, shift: int, table: Tensor, prefix: int | None = None) -> None:
        """Counts bits of |τ|."""
        pair, wanted = _pair(base, expert), -1 if prefix is None else prefix

        def count(first: int, last: int, into: Tensor) -> Tensor:
            self._tally(byref(pair), first, last, shift, wanted, into.data_ptr())
            return into

        def count_piece(first: int, last: int) -> Tensor:
            return count(first, last, torch.zeros(table.shape, dtype=torch.int64))

        if base.numel() < 4 * table.numel():  # tables of the pieces would cost more than they save
            count(0, base.numel(), table)
            return
        for counts in in_pieces(base.numel(), count_piece, _BLOCK, per_thread=1):
            table.add_(counts)

    def place(self, base: Tensor, expert: Tensor, pattern: int, nth: int) -> int:
        """The index of the nth element of these bits."""
        index = int(self._place(byref(_pair(base, expert)), base.numel(), pattern, nth))
        if index < 0:
            raise ValueError(f"fewer than {nth} elements are there")
        return index

    def row_cuts(self, base: Tensor, expert: Tensor, count: int, width: int) -> records.Cut:
        """One cut a row."""
        pair, rows = _pair(base, expert), base.numel() // width
        values, indices = torch.empty(rows, dtype=torch.float32), torch.empty(rows, dtype=torch.int64)

        def work(first: int, last: int) -> None:
            span = (first // width, last // width, width, count)
            self._row_cuts(byref(pair), *span, values.data_ptr(), indices.data_ptr())

        in_pieces(base.numel(), work, width)
        return records.Cut(values, indices)

    def ranks(self, base: Tensor, expert: Tensor, width: int) -> Tensor:
        """The rank of |τ| in its row."""
        result = torch.empty(base.numel(), dtype=rank_dtype(width))
        pair = _pair(base, expert)

        def work(first: int, last: int) -> None:
            span = (first // width, last // width, width)
            self._ranks(byref(pair), *span, result.itemsize, result.data_ptr())

        in_pieces(base.numel(), work, width)
        return result

    def block_sums(self, base: Tensor, expert: Tensor, keep: records.Keep) -> Tensor:
        """Σ |τ| and Σ |m τ| of each block."""
        sums = torch.empty((2, -(-base.numel() // SUM_BLOCK)), dtype=torch.float64)
        pair, told = _pair(base, expert), _keep(keep, expert)

        def work(first: int, last: int) -> None:
            self._block_sums(byref(told), byref(pair), base.numel(), first, last, sums.data_ptr())

        in_pieces(base.numel(), work, SUM_BLOCK)
        return sums


def _function(library: ctypes.CDLL, name: str, result: type | None, *arguments: type) -> Callable[..., Any]:
    function = library[f"mergesearch_{name}"]
    function.restype, function.argtypes = result, arguments
    return function


def _pair(base: Tensor, expert: Tensor) -> _Pair:
    return _Pair(base.data_ptr(), expert.data_ptr(), DTYPES[base.dtype], DTYPES[expert.dtype])


def _cut(cut: records.Cut | None, size: int) -> _Cut:
    if cut is None:
        return _Cut(None, None, size)
    return _Cut(cut.value.data_ptr(), cut.index.data_ptr(), size // cut.value.numel())


def _keep(keep: records.Keep, expert: Tensor) -> _Keep:
    """The record as the kernel reads it: pointers into tensors that the caller keeps alive."""
    size, chance = expert.numel(), keep.chance
    told = _Keep(expert=expert.data_ptr(), above=_cut(keep.above, size), below=_cut(keep.below, size))
    told.weight, told.factor, told.dtype = keep.weight, keep.multiplier, DTYPES[expert.dtype]
    if chance is not None:
        told.key, told.lowest, told.step = finalised(chance.key), chance.first, chance.step
        told.drawn, told.rescale = True, chance.rescale and not chance.even  # else `factor` has it
        if chance.ranks is not None and not chance.even:
            told.ranks, told.rank_bytes = chance.ranks.data_ptr(), chance.ranks.itemsize
    return told
