"""The largest elements, exactly as many as asked for, against a sort; every kind of tensor and of ties."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging.codecs.golomb import decode
from merging.codecs.size import bits_per_parameter
from merging.codecs.whole import Whole
from tests.merging.codecs.planted import DTYPES, QUICK, normal, pack, pair, reread, top

SHAPES = [(), (1,), (7,), (1, 9), (9, 1), (6, 4), (3, 4, 5), (0, 4), (2, 0, 3)]
# deltas on a coarse grid have many equal magnitudes, and zeros
GRID = st.sampled_from([0.0, 0.25, -0.25, 0.5, -0.5, 1.0])


@st.composite
def models(draw: Any) -> tuple[Tensor, Tensor]:
    """A base and an expert of any shape and dtypes."""
    shape = draw(st.sampled_from(SHAPES))
    size = torch.Size(shape).numel()
    deltas = torch.tensor(draw(st.lists(GRID, min_size=size, max_size=size))).view(shape)
    base = torch.tensor(draw(st.lists(GRID, min_size=size, max_size=size))).view(shape)
    return base.to(draw(st.sampled_from(DTYPES))), (base + deltas).to(draw(st.sampled_from(DTYPES)))


@QUICK
@given(models(), st.sampled_from([1e-6, 0.1, 0.3, 0.5, 0.99, 1.0]))
def test_of_any_tensor_exactly_the_largest_are_kept(drawn: tuple[Tensor, Tensor], density: float) -> None:
    base, expert = drawn
    delta = expert.float() - base.float()
    packed = reread("sparse", pack("sparse", base, expert, density=density, bits=32))
    expected, kept = torch.zeros(delta.numel()), top(delta, density)
    expected[kept] = delta.flatten()[kept]
    assert torch.equal(packed.expert(base), base.float() + expected.view(delta.shape))


def test_of_equal_magnitudes_the_lowest_indices_are_kept() -> None:
    delta = torch.tensor([[1.0, -2.0, 2.0, 0.0], [-1.0, 1.0, 2.0, 1.0]])
    packed = pack("sparse", torch.zeros(2, 4), delta, density=0.6)  # 4 of 8: three 2s, and the first of four 1s
    assert decode(packed.gaps).tolist() == [0, 1, 2, 6]


def test_large_tensors_too_are_cut_exactly() -> None:
    base, expert = pair(300, 400, dtype=torch.bfloat16)  # rounded: full of ties
    for density in (0.01, 0.2):
        packed = pack("sparse", base, expert, density=density)
        assert decode(packed.gaps).tolist() == top(expert.float() - base.float(), density)


def test_one_element_is_kept_of_a_share_of_none() -> None:
    base, expert = pair(5, 6)
    assert pack("sparse", base, expert, density=1e-6).gaps.count == 1


def test_nothing_is_kept_of_nothing() -> None:
    base, _ = pair(5, 6)
    packed = reread("sparse", pack("sparse", base, base.clone(), density=1.0))
    assert bits_per_parameter([packed]) == 0 and torch.equal(packed.expert(base), base)


@pytest.mark.parametrize(("bits", "taken"), [(16, 0.1 * 16 + 0.476), (32, 0.1 * 32 + 0.476)])
def test_what_it_takes_is_values_and_gaps(bits: int, taken: float) -> None:
    packed = pack("sparse", *pair(400, 400), density=0.1, bits=bits)
    assert bits_per_parameter([packed]) == pytest.approx(taken, rel=0.01)


def test_values_are_kept_to_the_precision_asked_for() -> None:
    base, expert = torch.zeros(40, 50), normal(40, 50)
    exact = pack("sparse", base, expert, density=1.0, bits=32).expert(base)
    assert torch.equal(exact, expert)
    rounded = pack("sparse", base, expert, density=1.0, bits=16).expert(base)
    assert torch.equal(rounded, expert.to(torch.bfloat16).float())
    assert_close(rounded, expert, rtol=2**-8, atol=0.0)


def test_vectors_stay_whole() -> None:
    assert isinstance(pack("sparse", *pair(9), role="vector"), Whole)
