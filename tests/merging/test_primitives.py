"""Selections, draws and elections against numbers worked by hand."""

import math

import pytest
import torch
from torch import Tensor

from merging.primitives import (
    agreeing_sums,
    band_mask,
    draw_mask,
    elect_,
    kept_count,
    largest_mask,
    magnitude_mask,
    masked_sum,
    mean_,
    stack_masks,
)


def mask(text: str) -> Tensor:
    return torch.tensor([character == "x" for character in text])


@pytest.mark.parametrize(
    ("share", "size", "count"),
    [(0.5, 5, 2), (0.3, 10, 3), (1e-6, 10, 1), (0.99, 1, 1), (1.0, 7, 7), (0.999, 10, 9), (1.0, 0, 0)],
)
def test_a_share_keeps_its_floor_and_at_least_one(share: float, size: int, count: int) -> None:
    assert kept_count(share, size) == count


@pytest.mark.parametrize(
    ("values", "count", "expected"),
    [
        ([3.0, 1.0, 2.0, 5.0], 2, "x..x"),
        ([2.0, 2.0, 2.0, 2.0], 3, "xxx."),  # all tied: the lowest indices
        ([1.0, 2.0, 3.0, 2.0, 2.0], 3, ".xxx."),  # 3, then the first two of three 2s
        ([0.0, 0.0, 0.0], 1, "x.."),
        ([1.0, 2.0], 0, ".."),
        ([1.0, 2.0], 2, "xx"),
        ([1.0, 2.0], 9, "xx"),
    ],
)
def test_the_largest_are_kept_exactly_and_ties_fall_by_index(values: list[float], count: int, expected: str) -> None:
    assert torch.equal(largest_mask(torch.tensor(values), count), mask(expected))


def test_the_largest_agree_with_a_stable_sort() -> None:
    generator = torch.Generator().manual_seed(3)
    for size in (1, 2, 17, 200):
        values = torch.randint(0, 5, (size,), generator=generator).float()  # full of ties
        for count in range(size + 1):
            expected = torch.zeros(size, dtype=torch.bool)
            expected[values.sort(descending=True, stable=True).indices[:count]] = True
            assert torch.equal(largest_mask(values, count), expected)


@pytest.mark.parametrize("shape", [(), (1,), (5, 1), (1, 5), (3, 4, 5), (0,)])
@pytest.mark.parametrize("density", [1e-6, 0.5, 1.0])
def test_masks_have_the_delta_s_shape_and_the_exact_count(shape: tuple[int, ...], density: float) -> None:
    delta = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    for selected in (magnitude_mask(delta, density), band_mask(delta, density, 0.3)):
        assert selected.shape == delta.shape and selected.dtype == torch.bool
        assert int(selected.sum()) == kept_count(density, delta.numel())


def test_a_view_that_is_not_contiguous_selects_by_its_own_order() -> None:
    delta = torch.tensor([[1.0, 5.0], [4.0, 2.0], [3.0, 6.0]]).T  # [[1, 4, 3], [5, 2, 6]]
    assert torch.equal(magnitude_mask(delta, 0.5), torch.tensor([[False, True, False], [True, False, True]]))


#                                     1   2   3   4   5   6   7   8   9   10      <- magnitudes, 10 elements
BANDS = [
    (0.5, 0.0, ".....xxxxx"),  # gamma 0: TIES' trim
    (0.5, 0.2, "...xxxxx.."),  # drop 10 and 9, keep the next five
    (0.3, 0.1, "......xxx."),
    (0.9, 0.3, "xxxxxxxxx."),  # gamma yields: 1 − 0.9 leaves room for one
    (1.0, 0.5, "xxxxxxxxxx"),  # density 1 leaves no room
    (0.5, 0.05, ".....xxxxx"),  # ⌊0.05 · 10⌋ = 0: nothing to drop, and the rest is not lost
]


@pytest.mark.parametrize(("density", "gamma", "expected"), BANDS)
def test_a_band_lies_below_the_largest(density: float, gamma: float, expected: str) -> None:
    delta = torch.arange(1.0, 11.0) * torch.tensor([1.0, -1.0]).repeat(5)  # signs do not matter
    assert torch.equal(band_mask(delta, density, gamma), mask(expected))


def test_a_draw_is_a_function_of_its_key_alone() -> None:
    first = draw_mask((1000,), 0.5, 7, "w", "expert")
    torch.manual_seed(123)
    assert torch.equal(draw_mask((1000,), 0.5, 7, "w", "expert"), first)
    assert torch.equal(draw_mask((10, 100), 0.5, 7, "w", "expert").flatten(), first)
    for other in ((8, "w", "expert"), (7, "v", "expert"), (7, "w", "other"), (7, "we", "xpert")):
        share = (draw_mask((1000,), 0.5, *other) == first).float().mean().item()
        assert abs(share - 0.5) < 5 * 0.5 / math.sqrt(1000), "independent draws agree on half the elements"


def test_a_draw_is_pinned_forever() -> None:
    # a stored recipe must rebuild the same bits: if this fails, the recipe's schema version must rise
    drawn = draw_mask((32,), 0.5, 0, "model.layers.0.self_attn.q_proj.weight", "0" * 64)
    assert "".join("x" if kept else "." for kept in drawn) == "xxxxx..xx.xx..x.....xxx.x.xxx.xx"


@pytest.mark.parametrize("density", [0.01, 0.3, 0.5, 0.9])
def test_the_kept_share_is_the_density(density: float) -> None:
    size = 100_000
    kept = int(draw_mask((size,), density, 0, "w", "expert").sum())
    assert abs(kept - density * size) < 4 * math.sqrt(size * density * (1 - density))  # 4 σ of a binomial


def test_draws_are_nested_and_density_1_keeps_all() -> None:
    few, many = (draw_mask((1000,), density, 0, "w", "expert") for density in (0.3, 0.6))
    assert torch.equal(few & many, few)
    assert draw_mask((1000,), 1.0, 0, "w", "expert").all()


def test_a_tied_vote_elects_plus() -> None:
    assert elect_(torch.tensor([3.0, -2.0, 0.0, -0.0])).tolist() == [1.0, -1.0, 1.0, 1.0]


def test_sums_over_masks() -> None:
    deltas = torch.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])
    masks = torch.stack([mask("x.x"), mask("xx.")])
    # 2·1 + 0.5·10 = 7;  0.5·20 = 10;  2·3 = 6
    assert masked_sum(deltas, masks, [2.0, 0.5]).tolist() == [7.0, 10.0, 6.0]


def test_who_agrees_and_with_what_weight() -> None:
    deltas = torch.tensor([[4.0, -4.0, 2.0, 0.0, -1.0], [-1.0, 1.0, 2.0, 3.0, 1.0], [2.0, -9.0, 0.0, -3.0, 0.0]])
    masks = torch.stack([mask("xxxxx"), mask("xxxxx"), mask("x.xxx")])
    numerator, denominator = agreeing_sums(deltas, masks, [1.0, 2.0, 3.0])
    # element 0: 4 − 2 + 6 = +8: experts 0, 2 agree: 4 + 6 = 10, weight 1 + 3
    # element 1: −4 + 2 (expert 2 is masked) = −2: expert 0 agrees: −4, weight 1
    # element 2: 2 + 4 + 0: experts 0, 1: 6, weight 3 (a zero neither votes nor agrees)
    # element 3: 6 − 9 = −3: expert 2: −9, weight 3
    # element 4: −1 + 2 = +1: expert 1: 2, weight 2
    assert numerator.tolist() == [10.0, -4.0, 6.0, -9.0, 2.0]
    assert denominator.tolist() == [4.0, 1.0, 3.0, 3.0, 2.0]


def test_a_weight_of_0_neither_votes_nor_agrees() -> None:
    deltas = torch.tensor([[-100.0], [1.0]])
    numerator, denominator = agreeing_sums(deltas, torch.ones(2, 1, dtype=torch.bool), [0.0, 0.5])
    assert (numerator.item(), denominator.item()) == (0.5, 0.5)


def test_a_mean_over_nobody_is_the_sum() -> None:
    assert mean_(torch.tensor([6.0, 0.0]), torch.tensor([3.0, 0.0])).tolist() == [2.0, 0.0]


def test_masks_are_stacked_and_must_match_the_experts() -> None:
    assert torch.equal(stack_masks(iter([mask("x."), mask(".x")]), torch.zeros(2, 2)), torch.eye(2).bool())
    with pytest.raises(ValueError, match="shorter"):
        stack_masks(iter([mask("x.")]), torch.zeros(2, 2))


def test_nan_reaches_the_sums_even_where_the_mask_drops_it() -> None:
    deltas = torch.tensor([[math.nan, 1.0, 2.0]])
    dropped = torch.tensor([[False, True, True]])
    assert masked_sum(deltas, dropped, [1.0]).isnan().tolist() == [True, False, False]
    assert agreeing_sums(deltas, dropped, [1.0])[0].isnan().tolist() == [True, False, False]
