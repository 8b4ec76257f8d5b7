"""Signs and mean magnitudes: numbers by hand, the error of Gaussian deltas, what stays whole."""

import math

import pytest
import torch
from torch.testing import assert_close

from merging.codecs.bitdelta import Signs
from merging.codecs.size import bits_per_parameter
from merging.codecs.whole import Whole
from merging.methods.contract import Role
from tests.merging.codecs.planted import error, normal, pack, pair, reread

BASE = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]])
DELTA = torch.tensor([[1.0, -3.0, 2.0], [0.0, -0.5, 5.5]])


def test_signs_times_the_mean_magnitude_by_hand() -> None:
    packed = pack("bitdelta", BASE, BASE + DELTA)
    assert_close(packed.expert(BASE), BASE + torch.tensor([[2.0, -2.0, 2.0], [2.0, -2.0, 2.0]]))  # 0 counts as +


def test_a_scale_a_row_by_hand() -> None:
    packed = pack("bitdelta", BASE, BASE + DELTA, rows=1)
    assert_close(packed.expert(BASE), BASE + torch.tensor([[2.0, -2.0, 2.0], [2.0, -2.0, 2.0]]))
    uneven = DELTA * torch.tensor([[1.0], [10.0]])
    packed = pack("bitdelta", BASE, BASE + uneven, rows=1)
    assert_close(packed.expert(BASE), BASE + torch.tensor([[2.0, -2.0, 2.0], [20.0, -20.0, 20.0]]))


def test_the_error_of_a_gaussian_delta_is_the_known_one() -> None:
    base, delta = normal(512, 1024) * 0.0, normal(512, 1024, seed=1)
    assert error(delta, base, pack("bitdelta", base, delta)) == pytest.approx(math.sqrt(1 - 2 / math.pi), rel=2e-3)


def test_no_other_scale_errs_less() -> None:
    base, expert = pair(64, 96)
    packed = pack("bitdelta", base, expert)
    for factor in (0.98, 1.02):
        other = Signs(packed.shape, packed.signs, packed.scale * factor)
        assert error(expert, base, other) > error(expert, base, packed)


def test_rows_of_different_size_want_scales_of_their_own() -> None:
    base, expert = torch.zeros(32, 256), normal(32, 256) * torch.logspace(-2, 0, 32)[:, None]
    assert error(expert, base, pack("bitdelta", base, expert, rows=1)) == pytest.approx(0.603, abs=0.01)
    assert error(expert, base, pack("bitdelta", base, expert)) > 0.75


@pytest.mark.parametrize(("rows", "scales"), [(0, 1), (1, 128)])
def test_a_bit_an_element_and_a_float_a_scale(rows: int, scales: int) -> None:
    packed = pack("bitdelta", *pair(128, 256), rows=rows)
    assert bits_per_parameter([packed]) == 1 + 32 * scales / (128 * 256)


def test_each_matrix_of_a_stack_has_its_scale() -> None:
    delta = torch.stack([DELTA, 10 * DELTA])
    base = torch.zeros_like(delta)
    packed = pack("bitdelta", base, delta, role="stack")
    assert packed.scale.flatten().tolist() == [2.0, 20.0]
    alone = [pack("bitdelta", base[0], each).expert(base[0]) for each in delta]
    assert torch.equal(packed.expert(base), torch.stack(alone))
    assert torch.equal(reread("bitdelta", packed).expert(base), packed.expert(base))
    assert pack("bitdelta", base, delta, role="stack", rows=1).scale.shape == (2, 2, 1)


@pytest.mark.parametrize("role", ["embedding", "vector", "other"])
def test_what_is_no_matrix_stays_whole(role: Role) -> None:
    base, expert = pair(6, 4, dtype=torch.bfloat16)
    packed = pack("bitdelta", base, expert, role)
    assert isinstance(packed, Whole) and packed.expert(base) is expert
