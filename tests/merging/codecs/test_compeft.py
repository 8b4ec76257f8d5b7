"""Ternary deltas: published lengths, the best scale of Gaussian deltas, exact supports, any tensor there and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from merging.codecs.compeft import Ternary
from merging.codecs.golomb import decode
from merging.codecs.size import bits_per_parameter
from merging.codecs.whole import Whole
from tests.merging.codecs.planted import QUICK, error, normal, pack, pair, reread, top
from tests.merging.codecs.test_sparse import models

LENGTHS = {0.05: 0.339, 0.1: 0.576, 0.2: 0.939, 0.3: 1.19, 0.5: 1.50}


def gaussian(side: int = 700) -> tuple[Tensor, Tensor]:
    return torch.zeros(side, side), normal(side, side)


@pytest.mark.parametrize(("density", "bits"), LENGTHS.items())
def test_lengths_are_the_published_ones(density: float, bits: float) -> None:
    packed = pack("compeft", *gaussian(), density=density)
    assert bits_per_parameter([packed]) == pytest.approx(bits, rel=0.01)


@QUICK
@given(models(), st.sampled_from([1e-6, 0.1, 0.5, 1.0]), st.sampled_from([0.0, 1.5]))
def test_of_any_tensor_the_signs_of_the_largest_are_kept(
    drawn: tuple[Tensor, Tensor], density: float, scale: float
) -> None:
    base, expert = drawn
    delta = expert.float() - base.float()
    packed = pack("compeft", base, expert, density=density, scale=scale)
    expected, kept = torch.zeros(delta.numel()), top(delta, density)
    expected[kept] = delta.flatten()[kept].sign() * packed.magnitude
    again = reread("compeft", packed)
    assert torch.equal(again.expert(base), base.float() + expected.view(delta.shape))
    exact = delta.double().flatten()
    wanted = scale * (exact - exact.mean()).square().mean().sqrt() if scale else exact[kept].abs().mean()
    assert packed.magnitude == pytest.approx(float(wanted.nan_to_num()), rel=1e-12, abs=1e-12)  # of nothing 0


@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_numbers_by_hand(scale: float) -> None:
    # mean 1/2, variance (1 + 9 + 1 + 9) / 4 − 1/4
    base, delta = torch.ones(2, 2), torch.tensor([[1.0, -3.0], [1.0, 3.0]])
    size = scale * 4.75**0.5 if scale else 3.0
    made = pack("compeft", base, base + delta, density=0.5, scale=scale).expert(base)
    assert_close(made, torch.tensor([[1.0, 1.0 - size], [1.0, 1.0 + size]]))


@pytest.mark.parametrize(("density", "sigmas"), [(0.05, 2.34), (0.1, 2.06), (0.2, 1.75), (0.3, 1.55), (0.5, 1.27)])
def test_the_best_scale_of_a_gaussian_delta(density: float, sigmas: float) -> None:
    """E[|z| : |z| is among the largest] has a closed form: 2 φ(c) / k with P(|z| > c) = k."""
    base, delta = gaussian()
    packed = pack("compeft", base, delta, density=density)
    normal_law = torch.distributions.Normal(0.0, 1.0)
    cut = normal_law.icdf(torch.tensor(1 - density / 2))
    closed = float(2 * normal_law.log_prob(cut).exp() / density)
    assert packed.magnitude == pytest.approx(closed, rel=3e-3)
    assert closed == pytest.approx(sigmas, abs=0.006)


def test_no_other_scale_errs_less() -> None:
    base, expert = pair(90, 70)
    packed = pack("compeft", base, expert)
    for factor in (0.98, 1.02):
        other = Ternary(packed.shape, packed.gaps, packed.signs, packed.magnitude * factor)
        assert error(expert, base, other) > error(expert, base, packed)


def test_a_ternary_delta_comes_back() -> None:
    base, delta = torch.zeros(30, 40), normal(30, 40).sign() * (normal(30, 40, seed=1) > 1) * 0.25
    packed = pack("compeft", base, delta, density=0.3)
    assert torch.equal(packed.expert(base), delta)
    assert decode(packed.gaps).tolist() == delta.flatten().nonzero().flatten().tolist()


def test_vectors_stay_whole() -> None:
    assert isinstance(pack("compeft", *pair(9), role="vector"), Whole)
