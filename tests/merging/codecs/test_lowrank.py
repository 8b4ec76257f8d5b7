"""Eckart and Young's error, planted ranks, the rank that an energy asks for, and when a matrix stays whole."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging.codecs.catalog import implementation
from merging.codecs.lowrank import LowRank
from merging.codecs.size import bits_per_parameter, payload_bytes
from merging.codecs.whole import Whole
from merging.methods.contract import Role
from tests.merging.codecs.planted import normal, pack, pair, reread


def planted(rows: int, columns: int, rank: int) -> Tensor:
    return normal(rows, rank) @ normal(rank, columns, seed=1)


def of_values(*values: float, rows: int = 12, columns: int = 10) -> Tensor:
    """A matrix of these singular values, in no special position."""
    left, right = torch.linalg.qr(normal(rows, len(values))).Q, torch.linalg.qr(normal(columns, len(values), seed=1)).Q
    return (left * torch.tensor(values)) @ right.mT


@pytest.mark.parametrize("rank", [1, 3, 7])
def test_the_error_is_that_of_the_directions_left_out(rank: int) -> None:
    base, expert = pair(40, 60, size=1.0)
    packed = pack("lowrank", base, expert, rank=rank, energy=1.0, bits=32)
    delta = (expert - base).double()
    left_out = torch.linalg.svdvals(delta)[rank:].square().sum()
    assert_close((packed.delta().double() - delta).square().sum(), left_out, rtol=1e-4, atol=0.0)
    assert packed.up.shape == (40, rank) and packed.down.shape == (rank, 60)


def test_a_planted_rank_is_found_and_exact() -> None:
    base, delta = normal(48, 64, seed=5), planted(48, 64, 5)
    packed = pack("lowrank", base, base + delta, energy=1.0 - 1e-9, bits=32)
    assert packed.up.shape[1] == 5
    assert_close(packed.expert(base), base + delta, rtol=0.0, atol=1e-4)


@pytest.mark.parametrize(
    ("energy", "rank", "kept"), [(0.5, 0, 1), (0.64, 0, 1), (0.65, 0, 2), (0.96, 0, 2), (0.97, 0, 3), (1.0, 2, 2)]
)
def test_the_rank_is_the_smallest_with_that_energy_up_to_the_cap(energy: float, rank: int, kept: int) -> None:
    delta = of_values(8.0, 5.7, 1.85)  # squares: 64, 32.5, 3.4 of 99.9
    packed = pack("lowrank", torch.zeros_like(delta), delta, energy=energy, rank=rank)
    assert packed.up.shape[1] == kept


def test_bfloat16_factors_take_half_and_err_as_bfloat16_does() -> None:
    delta = planted(48, 64, 4) * 1e-3
    base = torch.zeros_like(delta)
    short, long = (pack("lowrank", base, delta, bits=bits, energy=1.0 - 1e-9) for bits in (16, 32))
    assert 2 * payload_bytes(short) == payload_bytes(long)
    assert bits_per_parameter([short]) == 16 * 4 * (48 + 64) / (48 * 64)
    assert float((short.delta() - delta).norm() / delta.norm()) < 2**-8


def test_what_would_be_no_smaller_stays_whole() -> None:
    base, expert = pair(24, 24)
    assert isinstance(pack("lowrank", base, expert, energy=1.0), Whole)
    assert isinstance(pack("lowrank", base, expert, energy=1.0, rank=12, bits=32), Whole)  # 2 · 12 · 24 = 24 · 24
    assert isinstance(pack("lowrank", base, expert, energy=1.0, rank=11, bits=32), LowRank)


@pytest.mark.parametrize("role", ["embedding", "vector", "other"])
def test_what_is_no_matrix_stays_whole(role: Role) -> None:
    base, expert = pair(64, 64)
    assert isinstance(pack("lowrank", base, expert, role, rank=1), Whole)


def test_each_of_a_stack_has_its_own_rank_filled_up_with_zeros() -> None:
    delta = torch.stack([planted(20, 30, 2), torch.zeros(20, 30), planted(20, 30, 4)])
    base = normal(3, 20, 30)
    packed = pack("lowrank", base, base + delta, role="stack", energy=1.0 - 1e-9, bits=32)
    assert packed.up.shape == (3, 20, 4) and packed.down.shape == (3, 4, 30)
    assert packed.down[0, 2:].eq(0).all() and packed.down[1].eq(0).all()
    assert_close(packed.expert(base), base + delta, rtol=0.0, atol=1e-4)
    assert torch.equal(reread("lowrank", packed).expert(base), packed.expert(base))


def test_nothing_learned_has_rank_0_and_adds_nothing() -> None:
    base, _ = pair(20, 30)
    packed = pack("lowrank", base, base.clone())
    assert packed.up.shape[1] == 0 and torch.equal(reread("lowrank", packed).expert(base), base)


@pytest.mark.parametrize("transposed", [False, True])
def test_factors_of_an_adapter_lie_either_way(transposed: bool) -> None:
    up, down = normal(6, 2).half(), normal(2, 9, seed=1).half()
    packed = LowRank(up, down, transposed)
    expected = up.float() @ down.float()
    assert packed.shape == ((9, 6) if transposed else (6, 9))
    base = torch.zeros(packed.shape)
    assert torch.equal(reread("lowrank", packed).expert(base), expected.mT if transposed else expected)


@pytest.mark.parametrize(
    ("shape", "parts", "numbers", "problem"),
    [
        ((6, 9), {"down": torch.ones(3, 9)}, {}, r"down has the shape \[3, 9\], not \[2, 9\]"),
        ((7, 9), {}, {}, r"up has the shape \[6, 2\], not \[7, 2\]"),
        ((6,), {}, {}, "shape of no matrix"),
        ((6, 9), {"up": torch.tensor(1.0)}, {}, r"up has the shape \[\]"),
        ((6, 9), {"up": torch.ones(6, 2, dtype=torch.int8)}, {}, "up is of torch.int8"),
        ((6, 9), {}, {"transposed": 2}, "transposed is 2, not a whole number up to 1"),
    ],
)
def test_factors_that_do_not_fit_are_refused(
    shape: tuple[int, ...], parts: dict[str, Tensor], numbers: dict[str, Any], problem: str
) -> None:
    payload = {"up": torch.ones(6, 2), "down": torch.ones(2, 9)} | parts
    with pytest.raises(ValueError, match=problem):
        implementation("lowrank").unpack(shape, payload, {"transposed": 0} | numbers)
