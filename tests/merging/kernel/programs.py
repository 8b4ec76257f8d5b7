"""Random models and programs for the kernel's tests, and what it means that two tensors hold the same."""

import torch
from hypothesis import strategies as st
from torch import Tensor

from merging.kernel import Chance, Cut, Join, Keep, Program, cut, ranks

JOINS: list[Join] = ["sum", "mean", "elected_sum", "elected_mean"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
SHAPES = [(1, 1), (1, 37), (37, 1), (3, 1025), (40, 100), (1, 5000), (5, 0), (2, 2500)]
KINDS = ["all", "cuts", "drawn", "ranked", "cuts, drawn", "cuts, ranked"]
NASTY = [0.0, -0.0, 1.0, -1.0, 1e-40, -1e-45, 6e-8, 65504.0, 3e38, float("inf"), float("-inf"), float("nan")]


def same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors hold the same bits; all NaN count as one."""
    words = {2: torch.int16, 4: torch.int32, 8: torch.int64}[one.itemsize]
    equal = (one.view(words) == other.view(words)) | (one.isnan() & other.isnan())
    return one.dtype == other.dtype and one.shape == other.shape and bool(equal.all())


def model(generator: torch.Generator, size: int, dtype: torch.dtype, nasty: bool) -> Tensor:
    """[size]: small numbers with many ties, and, if nasty, numbers that arithmetic trips over."""
    values = torch.randn(size, generator=generator).mul_(4).round_().div_(8)
    values += torch.randn(size, generator=generator) * (torch.rand(size, generator=generator) < 0.5)
    if nasty:
        special = torch.tensor(NASTY)[torch.randint(len(NASTY), (size,), generator=generator)]
        values = torch.where(torch.rand(size, generator=generator) < 0.2, special, values)
    return values.to(dtype)


@st.composite
def merges(draw: st.DrawFn) -> tuple[Program, Tensor, list[Tensor], torch.dtype, torch.dtype]:
    """A program, base, experts, the dtype to store and that of the result.

    Half of them are as merges mostly are: every model of one dtype, every expert chosen in the same way.
    """
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    rows, width = draw(st.sampled_from(SHAPES))
    nasty, alike = draw(st.booleans()), draw(st.booleans())
    dtypes = st.just(draw(st.sampled_from(DTYPES))) if alike else st.sampled_from(DTYPES)
    base = model(generator, rows * width, draw(dtypes), nasty)
    experts = [model(generator, rows * width, draw(dtypes), nasty) for _ in range(draw(st.integers(1, 5)))]
    kinds = st.just(draw(st.sampled_from(KINDS))) if alike else st.sampled_from(KINDS)
    keeps = tuple(draw(_keeps(base, expert, width, draw(kinds))) for expert in experts)
    join = draw(st.sampled_from(JOINS))
    scale, divisor = draw(st.sampled_from([1.0, 0.7, -2.5])), draw(st.sampled_from([1.0, 0.3]))
    stored = draw(dtypes)
    result = stored if alike and draw(st.booleans()) else draw(st.sampled_from(DTYPES))
    return Program(keeps, join, scale, divisor), base, experts, stored, result


@st.composite
def _keeps(draw: st.DrawFn, base: Tensor, expert: Tensor, width: int, kind: str) -> Keep:
    def place() -> Cut | None:
        row_width = draw(st.sampled_from([None, width]))
        if "cuts" not in kind or base.numel() == 0 or draw(st.booleans()):
            return None
        return cut(base, expert, int(draw(st.floats(0, 1)) * (row_width or base.numel())), row_width=row_width)

    low, high = sorted((draw(st.floats(0.05, 1)), draw(st.floats(0.05, 1))))
    ranked = ranks(base, expert, width) if "ranked" in kind and width else None
    if ranked is not None and draw(st.integers(0, 3)) == 0:
        ranked = ranked.to(torch.int32)
    chance = Chance(draw(st.integers(0, 2**64 - 1)), low, high, ranked, max(width, 1), draw(st.booleans()))
    return Keep(
        weight=draw(st.sampled_from([1.0, 0.3, 0.0, -0.5])),
        above=place(),
        below=place(),
        chance=chance if "drawn" in kind or "ranked" in kind else None,
        factor=draw(st.sampled_from([1.0, 1.7])),
    )
