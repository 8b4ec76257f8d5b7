"""The compiled kernel and torch give the same bits, whatever the program, the dtypes and the numbers."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from merging.kernel import Keep, Program, cut, histogram, l1_sums, ranks, run, weighted_sum
from merging.kernel.choice import VARIABLE
from tests.merging.kernel.programs import DTYPES, merges, model, same

pytestmark = pytest.mark.usefixtures("compiler")
LAW = settings(derandomize=True, database=None, deadline=None, max_examples=30)
Result = TypeVar("Result")


def both(work: Callable[[], Result]) -> tuple[Result, Result]:
    """What the compiled kernel and torch answer."""
    answers = []
    for kernel in ("native", "torch"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLE, kernel)
            answers.append(work())
    return answers[0], answers[1]


@settings(LAW, max_examples=120)
@given(merges())
def test_a_program_has_one_result(merge: tuple[Program, Tensor, list[Tensor], torch.dtype, torch.dtype]) -> None:
    program, base, experts, stored, result = merge

    def built() -> tuple[Tensor, bool]:
        out = torch.empty_like(base, dtype=result)
        finite = run(program, out, base, experts, stored)
        return out, finite

    (one, one_finite), (other, other_finite) = both(built)
    assert same(one, other)
    assert one_finite == other_finite


@LAW
@given(merges(), st.booleans(), st.data())
def test_a_weighted_sum_has_one_result(
    merge: tuple[Program, Tensor, list[Tensor], torch.dtype, torch.dtype], by_row: bool, data: st.DataObject
) -> None:
    _, base, experts, stored, result = merge
    rows = base.numel() // 5 if by_row and base.numel() % 5 == 0 and base.numel() else 1
    numbers = st.sampled_from([0.0, 1.0, 0.3, -1.7, 1e-3])
    size = (len(experts) + 1) * min(rows, 7)
    drawn = torch.tensor(data.draw(st.lists(numbers, min_size=size, max_size=size))).view(len(experts) + 1, -1)
    coefficients = drawn.repeat(1, -(-rows // drawn.shape[1]))[:, :rows]

    def built() -> tuple[Tensor, bool]:
        out = torch.empty_like(base, dtype=result)
        finite = weighted_sum(out, [base, *experts], coefficients, stored)
        return out, finite

    (one, one_finite), (other, other_finite) = both(built)
    assert same(one, other)
    assert one_finite == other_finite


@LAW
@given(merges(), st.floats(0, 1))
def test_selections_have_one_result(
    merge: tuple[Program, Tensor, list[Tensor], torch.dtype, torch.dtype], share: float
) -> None:
    program, base, (expert, *_), *_ = merge
    width = base.numel() // 4 if base.numel() % 4 == 0 and base.numel() else max(base.numel(), 1)
    count = int(share * base.numel())

    def answers() -> list[Tensor]:
        cuts = [cut(base, expert, count), cut(base, expert, count // 4, row_width=width)]
        sums = torch.tensor(l1_sums(base, expert, program.keeps[0]), dtype=torch.float64)
        counts = [histogram(base, expert), ranks(base, expert, width).to(torch.int32), sums]
        return counts + [tensor for place in cuts for tensor in (place.value, place.index)]

    for one, other in zip(*both(answers), strict=True):
        assert same(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_half_is_widened_and_rounded_as_torch_does(dtype: torch.dtype) -> None:
    halves = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(dtype)
    wide = halves.float()
    between = torch.cat([wide, wide * (1 + 2**-9), wide * (1 + 2**-8), wide * (1 + 2**-12), wide.nextafter(wide * 2)])
    for values, result in ((halves, torch.float32), (between, dtype)):
        one, other = both(partial(rounded, values, result))
        assert same(one, other)
        assert same(one, values.to(result))


def rounded(values: Tensor, dtype: torch.dtype) -> Tensor:
    out = torch.empty_like(values, dtype=dtype)
    weighted_sum(out, [values], [1.0], dtype)
    return out


def test_neither_pieces_nor_threads_change_a_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, size = torch.Generator().manual_seed(1), (1 << 20) + 777
    base, expert = (model(generator, size, torch.bfloat16, False) for _ in range(2))
    monkeypatch.setenv(VARIABLE, "native")

    def built() -> list[Tensor]:
        out, keep = torch.empty_like(base), Keep(0.5, above=cut(base, expert, size // 3))
        run(Program((keep,), "elected_mean"), out, base, [expert], torch.bfloat16)
        sums = torch.tensor(l1_sums(base, expert, keep), dtype=torch.float64)
        return [out, histogram(base, expert), sums, ranks(base, expert, size // 7 if size % 7 == 0 else size)]

    threads = torch.get_num_threads()
    alone = built()
    try:
        torch.set_num_threads(3)
        together = built()
    finally:
        torch.set_num_threads(threads)
    assert all(same(one, other) for one, other in zip(alone, together, strict=True))


@pytest.mark.parametrize("dtype", [torch.float64, *DTYPES])
def test_float64_and_strided_models_are_left_to_torch(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "native")
    base = torch.arange(12.0, dtype=torch.float64).view(3, 4).to(dtype)
    expert = (base + 2).t().contiguous().t()
    out = torch.empty_like(base, memory_format=torch.contiguous_format)
    assert run(Program((Keep(0.5),), "sum"), out, base, [expert], dtype)
    assert torch.equal(out, base + 1)
    assert weighted_sum(out, [base, expert], [0.5, 0.5], dtype)
    assert torch.equal(out, base + 1)
