"""The fused build: passes over a tensor of every model that read each byte once, as compiled code or in torch.

Callers meet the functions of this file and the records of `merging.kernel.program`. Which code runs is decided per
call: the compiled kernel for float32, bfloat16 and float16 on the CPU where it can be had, else torch; the bits of
the result are the same. All tensors of a call have one number of elements and are on one device. Magnitudes are
those of τ = expert − base in float32.

Raises, all of them:
    ValueError: tensors of different sizes, cuts or ranks that are not the tensor's.
    InvalidInput: the environment asks for a kernel that cannot be had (see `merging.kernel.choice`).
"""

import math
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from merging.kernel import plain, plain_competing, plain_select, select
from merging.kernel.choice import native_for
from merging.kernel.competing import Contest
from merging.kernel.draws import draw, draw_key
from merging.kernel.program import Chance, Cut, Join, Keep, Program
from merging.kernel.select import BIN_BITS, MODEL_BIN_BITS, cut_at, kth_bin

__all__ = [
    "Chance",
    "Contest",
    "Cut",
    "Join",
    "Keep",
    "Program",
    "cut",
    "cut_at",
    "draw",
    "draw_key",
    "histogram",
    "kth_bin",
    "l1_sums",
    "model_bin",
    "model_histogram",
    "place",
    "ranks",
    "run",
    "weighted_sum",
]

# Elements of a tensor that is cut at once faster than by its histogram.
SMALL = 1 << 13


def weighted_sum(
    out: Tensor, models: Sequence[Tensor], coefficients: Sequence[float] | Tensor, stored: torch.dtype
) -> bool:
    """out = Σ c_i X_i, in the order given, rounded to `stored` on the way.

    Float32 inside (float64 if that is stored), every product and every sum rounded on its own. A model whose
    coefficient is 0 is not read, so that a single coefficient of 1 gives that model's own bits.

    Args:
        out: contiguous [*shape], overwritten.
        coefficients: one per model, or a Tensor [models, rows]: one per slice along the first dimension.

    Returns:
        Whether every value of the rounded result is finite.
    """
    _one_size(out, *models)
    if out.numel() == 0:
        return True
    if isinstance(coefficients, Tensor):
        table = coefficients.to("cpu", torch.float64).reshape(len(models), -1)
        used: list[int] = table.any(dim=1).nonzero().flatten().tolist()
        table = table[used]
    else:  # the usual case, in few calls: small tensors are many
        used = [i for i, c in enumerate(coefficients) if c != 0.0]
        table = torch.tensor([[coefficients[i]] for i in used], dtype=torch.float64)
    if not used:
        out.zero_()
        return True
    view = out.view(table.shape[1], -1)
    chosen = [models[i].reshape(view.shape) for i in used]
    fused: _Fused = native_for([out, *chosen], stored=stored) or plain
    return fused.weighted_sum(view, chosen, table, stored)


def run(program: Program | Contest, out: Tensor, base: Tensor, experts: Sequence[Tensor], stored: torch.dtype) -> bool:
    """Executes a program (`merging.kernel.program`) or a contest (`merging.kernel.competing`).

    Args:
        out: contiguous [*shape], overwritten.

    Returns:
        Whether every value of the result, rounded to `stored`, is finite.
    """
    places = len(program.weights if isinstance(program, Contest) else program.keeps)
    if places != len(experts):
        raise ValueError(f"{len(experts)} experts, not {places}: there is one expert per keep or weight")
    held = _masks(program, out) if isinstance(program, Contest) else _held(program.keeps, out)
    _one_size(out, base, *experts)
    if out.numel() == 0:
        return True
    target, start, *rest = (tensor.reshape(-1) for tensor in (out.view(-1), base, *experts))
    native = native_for([target, start, *rest], held, stored)
    if isinstance(program, Contest):
        compete = native.compete if native else plain_competing.compete
        return compete(program, target, start, rest, stored)
    fused: _Fused = native or plain
    return fused.run(program, target, start, rest, stored)


def histogram(base: Tensor, expert: Tensor) -> Tensor:
    """int64 [2^15] on the CPU: how many |τ| have each value of a float32's upper 16 bits, the sign dropped."""
    return _tallied(base, expert)


def cut(base: Tensor, expert: Tensor, count: int, histogram: Tensor | None = None, row_width: int | None = None) -> Cut:
    """The cut above which lie exactly the `count` largest |τ|: of equal ones the lowest indices.

    NaN counts as largest. A count of 0 or less cuts off nothing, one of all elements or more everything.

    Args:
        histogram: of the same tensors, if it is known.
        row_width: cut every row of so many elements by itself, `count` in each; None: the tensor is one row.
    """
    _one_size(base, expert)
    width = base.numel() if row_width is None else row_width
    rows = _rows(base, width)
    if not base.numel() or count <= 0 or count >= width:
        return select.trivial_cut(count > 0, rows, width, base.device)
    counts, flat, other = _counts(base, expert)
    if rows > 1 or (histogram is None and width <= SMALL):  # its histogram would be larger than the tensor
        return counts.row_cuts(flat, other, count, width)
    return select.whole_cut(counts, flat, other, count, _tallied(flat, other) if histogram is None else histogram)


def ranks(base: Tensor, expert: Tensor, width: int) -> Tensor:
    """[n], uint16 (int32 for rows longer than 65536): the rank of |τ| in its row of `width`, ascending from 0.

    Equal magnitudes are ranked by their index; NaN ranks highest.
    """
    _rows(base, width)
    counts, flat, other = _counts(base, expert)
    return counts.ranks(flat, other, width)


def model_histogram(base: Tensor, expert: Tensor, table: Tensor) -> None:
    """Adds a tensor's |τ| to counts by the upper 20 bits (30 to 11): `table`, int64 [2^20] on the CPU.

    `kth_bin` of the finished table says in which bin the model's k-th largest lies, `model_bin` counts its members.
    """
    _bins(table, 31 - MODEL_BIN_BITS)
    counts, flat, other = _counts(base, expert)
    counts.tally(flat, other, MODEL_BIN_BITS, table)


def model_bin(base: Tensor, expert: Tensor, upper: int, table: Tensor) -> None:
    """Adds the |τ| in bin `upper` of the model's histogram to counts by their lower 11 bits: int64 [2^11]."""
    _bins(table, MODEL_BIN_BITS)
    counts, flat, other = _counts(base, expert)
    counts.tally(flat, other, MODEL_BIN_BITS, table, upper)


def place(base: Tensor, expert: Tensor, pattern: int, nth: int) -> int:
    """The flat index of the nth (from 1) element whose |τ| has exactly these bits.

    Raises:
        ValueError: there are fewer.
    """
    counts, flat, other = _counts(base, expert)
    return counts.place(flat, other, pattern, nth)


def l1_sums(base: Tensor, expert: Tensor, keep: Keep) -> tuple[float, float]:
    """Σ |τ| and Σ |m τ|, m what the cuts and the chance of `keep` keep; its weight and factors do not count."""
    counts, flat, other = _counts(base, expert, *_held([keep], base))
    if flat.numel() == 0:
        return 0.0, 0.0
    everything, kept = counts.block_sums(flat, other, keep).tolist()
    return math.fsum(everything), math.fsum(kept)  # correctly rounded: the order does not matter


class _Fused(Protocol):
    """The passes that write a merged tensor; see `merging.kernel.plain`."""

    def weighted_sum(
        self, out: Tensor, models: Sequence[Tensor], coefficients: Tensor, stored: torch.dtype
    ) -> bool: ...

    def run(
        self, program: Program, out: Tensor, base: Tensor, experts: Sequence[Tensor], stored: torch.dtype
    ) -> bool: ...


def _tallied(base: Tensor, expert: Tensor) -> Tensor:
    table = torch.zeros(1 << 31 - BIN_BITS, dtype=torch.int64)
    counts, flat, other = _counts(base, expert)
    counts.tally(flat, other, BIN_BITS, table)
    return table


def _counts(base: Tensor, expert: Tensor, *held: Tensor) -> tuple[select.Counts, Tensor, Tensor]:
    """The code that reads these tensors, and the tensors flat."""
    _one_size(base, expert)
    flat, other = base.reshape(-1), expert.reshape(-1)
    return native_for([flat, other], held) or plain_select, flat, other


def _bins(table: Tensor, bits: int) -> None:
    fits = table.shape == (1 << bits,) and table.dtype == torch.int64 and table.is_contiguous()
    if not fits or table.device.type != "cpu":  # compiled code would write past the end
        raise ValueError(f"counts by {bits} bits are int64 [{1 << bits}] on the CPU")


def _held(keeps: Sequence[Keep], like: Tensor) -> list[Tensor]:
    """The tensors that selections hold, all of a tensor like this."""
    cuts = [cut for keep in keeps for cut in (keep.above, keep.below) if cut is not None]
    ranked = [chance.ranks for keep in keeps if (chance := keep.chance) and chance.ranks is not None]
    _one_size(like, *ranked)
    for cut in cuts:
        if like.numel() % max(len(cut.value), 1):
            raise ValueError(f"{like.numel()} elements are not {len(cut.value)} rows")
    return [*ranked, *(tensor for cut in cuts for tensor in (cut.value, cut.index))]


def _masks(contest: Contest, like: Tensor) -> list[Tensor]:
    """The tensors that a contest holds, all of a tensor like this."""
    masks = [] if contest.mask is None else [contest.mask]
    _one_size(like, *masks)
    return masks


def _rows(tensor: Tensor, width: int) -> int:
    if tensor.numel() % max(width, 1):
        raise ValueError(f"{tensor.numel()} elements are not rows of {width}")
    return tensor.numel() // width if width else 1


def _one_size(*tensors: Tensor) -> None:
    sizes = {tensor.numel() for tensor in tensors}
    if len(sizes) > 1:  # compiled code would read past the end
        raise ValueError(f"tensors of one merge have different numbers of elements: {sorted(sizes)}")
