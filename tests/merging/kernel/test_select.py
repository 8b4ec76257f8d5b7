"""Cuts, ranks and sums of magnitudes against a sort, by the compiled kernel and by torch."""

import math

import pytest
import torch
from torch import Tensor

from merging.kernel import (
    Chance,
    Cut,
    Keep,
    Program,
    cut,
    cut_at,
    histogram,
    kth_bin,
    l1_sums,
    model_bin,
    model_histogram,
    place,
    ranks,
    run,
)
from tests.merging.kernel.programs import model

pytestmark = pytest.mark.usefixtures("kernel")


def pair(size: int = 6000, dtype: torch.dtype = torch.bfloat16) -> tuple[Tensor, Tensor]:
    """Base and expert whose difference has many equal magnitudes, zeros among them."""
    generator = torch.Generator().manual_seed(size)
    return model(generator, size, dtype, False), model(generator, size, dtype, False)


def order(base: Tensor, expert: Tensor) -> Tensor:
    """Indices from the largest magnitude to the smallest, equal ones by index."""
    return (expert.float() - base.float()).abs().argsort(descending=True, stable=True)


def upper_side(base: Tensor, expert: Tensor, place: Cut) -> Tensor:
    """bool [n]: what a program keeps that keeps what is above a cut; nothing of these pairs is 0 where it counts."""
    ones = torch.zeros(base.numel())
    out = torch.empty(base.numel())
    delta = expert.float() - base.float()
    assert run(Program((Keep(1.0, above=place),), "sum"), out, ones, [delta], torch.float32)
    return (out != 0) | (delta == 0)


@pytest.mark.parametrize("count", [1, 2, 60, 1200, 3000, 5999])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_exactly_the_largest_lie_above_a_cut(count: int, dtype: torch.dtype) -> None:
    base, expert = pair(dtype=dtype)
    place = cut(base, expert, count)
    magnitudes = (expert.float() - base.float()).abs()
    above = (magnitudes > place.value) | ((magnitudes == place.value) & (torch.arange(6000) <= place.index))
    assert above.nonzero().flatten().tolist() == sorted(order(base, expert)[:count].tolist())
    assert torch.equal(upper_side(base, expert, place), above | (magnitudes == 0))
    known = cut(base, expert, count, histogram=histogram(base, expert))
    assert (known.value, known.index) == (place.value, place.index)


@pytest.mark.parametrize("width", [1, 2, 75, 300])
def test_every_row_is_cut_by_itself(width: int) -> None:
    base, expert = pair(600)
    count = max(width // 3, 1)
    place = cut(base, expert, count, row_width=width)
    assert len(place.value) == 600 // width
    rows = [cut(b, e, count) for b, e in zip(base.view(-1, width), expert.view(-1, width), strict=True)]
    assert torch.equal(place.value, torch.cat([row.value for row in rows]))
    assert torch.equal(place.index, torch.cat([row.index for row in rows]))


@pytest.mark.parametrize(("count", "kept"), [(-1, 0), (0, 0), (6, 6), (9, 6)])
def test_a_count_beyond_the_ends_cuts_nothing_or_all(count: int, kept: int) -> None:
    place = cut(torch.zeros(6), torch.tensor([0.5, 1.0, 2.0, -3.0, 1.0, 1.0]), count)
    assert int(upper_side(torch.zeros(6), torch.tensor([0.5, 1.0, 2.0, -3.0, 1.0, 1.0]), place).sum()) == kept


def test_nan_is_larger_than_infinity() -> None:
    base, expert = torch.zeros(5), torch.tensor([1.0, math.nan, -math.inf, 2.0, math.nan])
    assert ranks(base, expert, 5).tolist() == [0, 3, 2, 1, 4]
    assert cut(base, expert, 2).index.tolist() == [4]
    assert cut(base, expert, 3).value.tolist() == [math.inf]


def test_of_equal_magnitudes_the_lower_index_is_larger_in_a_cut_and_smaller_in_the_ranks() -> None:
    base, expert = torch.zeros(6), torch.tensor([1.0, -2.0, 2.0, 1.0, -1.0, 2.0])
    assert (cut(base, expert, 2).value.tolist(), cut(base, expert, 2).index.tolist()) == ([2.0], [2])
    assert ranks(base, expert, 6).tolist() == [0, 3, 4, 1, 2, 5]
    assert ranks(base, expert, 3).tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("width", [1, 10, 300, 6000])
def test_ranks_are_those_of_a_stable_sort(width: int) -> None:
    base, expert = pair()
    magnitudes = (expert.float() - base.float()).abs().view(-1, width)
    assert torch.equal(ranks(base, expert, width).long(), magnitudes.argsort(stable=True).argsort().flatten())


def test_a_row_longer_than_65536_has_32_bit_ranks() -> None:
    base, expert = pair(70_000)
    ranked = ranks(base, expert, 70_000)
    assert ranked.dtype == torch.int32
    assert torch.equal(ranked.long().sort().values, torch.arange(70_000))


def test_a_histogram_counts_the_upper_16_bits() -> None:
    counts = histogram(torch.zeros(5), torch.tensor([0.0, -1.0, 1.0, 1.001, 2.0]))
    assert {i: int(counts[i]) for i in counts.nonzero().flatten().tolist()} == {0: 1, 0x3F80: 3, 0x4000: 1}


def test_the_models_kth_largest_is_found_by_two_histograms() -> None:
    pairs = [pair(size) for size in (100, 5000, 3)]
    table, members = torch.zeros(1 << 20, dtype=torch.int64), torch.zeros(1 << 11, dtype=torch.int64)
    for base, expert in pairs:
        model_histogram(base, expert, table)
    upper, remaining = kth_bin(table, 1500)
    for base, expert in pairs:
        model_bin(base, expert, upper, members)
    lower, missing = kth_bin(members, remaining)
    everything = torch.cat([(expert.float() - base.float()).abs() for base, expert in pairs])
    value = everything.sort(descending=True).values[1499]
    found = cut_at(upper << 11 | lower, -1)
    assert found.value.item() == value
    assert missing == 1500 - int((everything > value).sum())


def test_the_place_of_the_nth_element_of_some_bits() -> None:
    base, expert = torch.zeros(5000), torch.zeros(5000)
    expert[[7, 3000, 4999]] = torch.tensor([1.0, -1.0, 1.0])
    assert [place(base, expert, 0x3F800000, nth) for nth in (1, 2, 3)] == [7, 3000, 4999]
    with pytest.raises(ValueError, match="4"):
        place(base, expert, 0x3F800000, 4)


def test_sums_of_magnitudes() -> None:
    base, expert = torch.zeros(5), torch.tensor([3.0, -1.0, 2.0, 0.25, -4.0])
    largest = Keep(7.0, above=cut(base, expert, 3), below=cut(base, expert, 1), factor=9.0)
    assert l1_sums(base, expert, largest) == (10.25, 5.0)
    assert l1_sums(base, expert, Keep(1.0)) == (10.25, 10.25)
    assert l1_sums(torch.zeros(0), torch.zeros(0), Keep(1.0)) == (0.0, 0.0)
    base, expert = pair(20_001)
    everything, kept = l1_sums(base, expert, Keep(1.0, chance=Chance(1, 0.3, 0.3)))
    assert everything == pytest.approx(float((expert.double() - base.double()).abs().sum()), rel=1e-7)
    assert kept / everything == pytest.approx(0.3, abs=0.02)


def test_what_is_not_of_the_tensors_size_is_refused() -> None:
    base, expert, out = torch.zeros(6), torch.ones(6), torch.zeros(6)
    with pytest.raises(ValueError, match="different numbers of elements"):
        run(Program((Keep(1.0),), "sum"), out, base, [torch.ones(5)], torch.float32)
    with pytest.raises(ValueError, match="not 4 rows"):
        rows = cut(torch.zeros(8), torch.ones(8), 1, row_width=2)
        run(Program((Keep(1.0, above=rows),), "sum"), out, base, [expert], torch.float32)
    with pytest.raises(ValueError, match="different numbers of elements"):
        ranked = Chance(1, 0.4, 0.6, torch.zeros(7, dtype=torch.uint16), 7)
        run(Program((Keep(1.0, chance=ranked),), "sum"), out, base, [expert], torch.float32)
    with pytest.raises(ValueError, match="rows of 4"):
        cut(base, expert, 1, row_width=4)
    with pytest.raises(ValueError, match="counts by 20 bits"):
        model_histogram(base, expert, torch.zeros(1 << 19, dtype=torch.int64))
    with pytest.raises(ValueError, match="one expert per keep"):
        run(Program((Keep(1.0),), "sum"), out, base, [expert, expert], torch.float32)
