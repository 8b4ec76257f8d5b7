"""Draws are functions of key and index alone, uniform, and independent of one another."""

import math

import pytest
import torch
from torch import Tensor

from merging.kernel import draw, draw_key

SIZE = 1 << 17
# Keys that differ in one bit of either half, and small ones: what a weak mixing would confuse.
KEYS = [0, 1, 2, 1 << 32, 1 << 63, 0x0123456789ABCDEF, 0x0123456789ABCDEE, 0x0123456889ABCDEF]
EACH_KEY = pytest.mark.parametrize("key", KEYS)


def correlation(one: Tensor, other: Tensor) -> float:
    """Of two uniform samples, in units of its standard deviation were they independent."""
    products = (one.double() - 0.5) * (other.double() - 0.5)
    return float(products.mean() * 12 * math.sqrt(products.numel()))


def test_a_draw_is_pinned_forever() -> None:
    # a stored recipe must rebuild the same bits: if this fails, the recipe's schema version must rise
    key = draw_key(0, "model.layers.0.self_attn.q_proj.weight", "0" * 64)
    assert key == 0x3063899A611589A9
    assert (draw(key, 0, 4) * 2**24).tolist() == [4451474, 16221175, 15032225, 8977270]
    assert (draw(key, (1 << 32) - 1, 2) * 2**24).tolist() == [15119401, 14737044]


def test_a_key_is_of_names_and_never_of_their_border() -> None:
    keys = {draw_key(*names) for names in ((7, "w", "e"), (8, "w", "e"), (7, "v", "e"), (7, "w", "f"), (7, "we", ""))}
    assert len(keys) == 5
    assert all(0 <= key < 1 << 64 for key in keys)


@pytest.mark.parametrize("first", [0, 12_345, (1 << 32) - 100, (1 << 33) + 7])
def test_a_piece_is_a_piece_of_the_whole(first: int) -> None:
    whole = draw(5, first, 1000)
    assert torch.equal(torch.cat([draw(5, first, 77), draw(5, first + 77, 923)]), whole)


@EACH_KEY
@pytest.mark.parametrize("density", [0.01, 0.3, 0.9])
def test_the_kept_share_is_the_density(key: int, density: float) -> None:
    kept = int((draw(key, 0, SIZE) < density).sum())
    assert abs(kept - density * SIZE) < 4 * math.sqrt(SIZE * density * (1 - density))  # 4 σ of a binomial


def test_numbers_lie_below_1_so_that_density_1_keeps_all() -> None:
    numbers = draw(3, 0, SIZE)  # kept is what lies below the density
    assert float(numbers.min()) >= 0.0 and float(numbers.max()) < 1.0


@EACH_KEY
def test_every_bit_is_set_half_the_time(key: int) -> None:
    words = (draw(key, 0, SIZE) * 2**24).to(torch.int32)
    for bit in range(24):
        set_share = float((words >> bit & 1).float().mean())
        assert abs(set_share - 0.5) < 4.5 * 0.5 / math.sqrt(SIZE), bit


@EACH_KEY
def test_the_numbers_fill_their_range_evenly(key: int) -> None:
    counts = torch.histc(draw(key, 0, SIZE), bins=256, min=0, max=1)
    chi_square = float(((counts - SIZE / 256) ** 2 / (SIZE / 256)).sum())
    assert abs(chi_square - 255) < 4.5 * math.sqrt(2 * 255)


@EACH_KEY
@pytest.mark.parametrize("lag", [1, 2, 3, 64, 2048, 4096])
def test_neighbours_are_independent(key: int, lag: int) -> None:
    numbers = draw(key, 0, SIZE + lag)
    assert abs(correlation(numbers[lag:], numbers[:-lag])) < 4.5
    pairs = torch.histc((numbers[lag:] * 16).floor() * 16 + (numbers[:-lag] * 16).floor(), bins=256, min=0, max=256)
    chi_square = float(((pairs - SIZE / 256) ** 2 / (SIZE / 256)).sum())
    assert abs(chi_square - 255) < 5 * math.sqrt(2 * 255)


def test_keys_are_independent_at_every_shift() -> None:
    numbers = [draw(key, 0, SIZE) for key in KEYS]
    for i, one in enumerate(numbers):
        for other in numbers[:i]:
            assert abs(correlation(one, other)) < 4.5
            for shift in (1, 7, 64):
                assert abs(correlation(one[shift:], other[:-shift])) < 4.5
            for flip in (1, 2, 1 << 16):  # were a key's half mixed into the index alone, it would show here
                order = torch.arange(SIZE) ^ flip
                assert abs(correlation(one, other[order])) < 4.5


def test_the_upper_half_of_the_index_counts() -> None:
    one, other = draw(7, 0, SIZE), draw(7, 1 << 32, SIZE)
    assert abs(correlation(one, other)) < 4.5
    assert not torch.equal(one, other)
