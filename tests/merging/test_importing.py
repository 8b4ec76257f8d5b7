"""Methods that import from one expert: by hand, beside plain versions, and repeatable on large tensors."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging.catalog import CATALOG
from tests.merging.driver import merge
from tests.merging.updates import check, noise, update


def test_nearswap_moves_no_element_further_than_t() -> None:
    delta = torch.tensor([0.5, -3.0, 0.1, 0.0])
    check(update("nearswap", [delta], t=0.2), 0.2, -0.2, 0.1, 0.0)
    check(update("nearswap", [delta], t=0.0), 0.0, 0.0, 0.0, 0.0)
    check(update("nearswap", [delta], t=4.0), *delta.tolist())


def test_nearswap_is_the_published_interpolation() -> None:
    base, delta, t = noise(50), noise(50, seed=1), 0.3
    share = (t / delta.abs()).clamp(max=1.0)
    out = merge(CATALOG["nearswap"], base, [base + delta], [1.0], {"t": t})
    assert_close(out, share * (base + delta) + (1 - share) * base, rtol=1e-5, atol=1e-6)


def fused(base: Tensor, expert: Tensor, c: float) -> Tensor:
    """The definition of arcee_fusion in float64."""
    p, q = expert.double().softmax(-1) + 1e-8, base.double().softmax(-1) + 1e-8
    importance = (expert - base).abs().double() * (p * (p / q).log()).sum(-1, keepdim=True)
    quartiles = torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)
    low, median, high = importance.flatten().quantile(quartiles, interpolation="lower")
    return torch.where(importance >= median + c * (high - low), expert, base)


def test_arcee_fusion_imports_outliers_of_a_row() -> None:
    # one divergence for all: quartiles 0.2, 0.3, 0.4 of it, the threshold 0.3 + c · 0.2
    delta = torch.tensor([0.1, 0.2, 0.3, 0.4, 5.0])
    check(update("arcee_fusion", [delta]), 0.0, 0.0, 0.0, 0.0, 5.0)
    check(update("arcee_fusion", [delta], c=0.0), 0.0, 0.0, 0.3, 0.4, 5.0)


@pytest.mark.parametrize("c", [0.0, 0.5, 1.5, 3.0])
@pytest.mark.parametrize("shape", [(40,), (30, 20), (1, 25), (3, 4, 5)])
def test_arcee_fusion_is_the_definition(shape: tuple[int, ...], c: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merging.methods.importing._CHUNK", 90)  # several runs of rows
    base, expert = noise(*shape), noise(*shape) + 0.3 * noise(*shape, seed=1)
    found = merge(CATALOG["arcee_fusion"], base, [expert], [1.0], {"c": c})
    assert_close(found, fused(base, expert, c))
    assert int((found != base).sum()) < base.numel() and (c > 0.0 or not torch.equal(found, base))


def test_arcee_fusion_counts_rows_that_diverge_as_more_important() -> None:
    base = torch.zeros(2, 4)
    step = torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, -0.1]])  # the first row's softmax does not change
    check((update("arcee_fusion", [base + step], c=0.5) != 0).float().sum(1), 0.0, 4.0)


def test_arcee_fusion_of_a_million_elements_draws_nothing() -> None:
    base, expert = noise(1100, 1000), noise(1100, 1000) + 0.1 * noise(1100, 1000, seed=1)
    torch.manual_seed(0)
    once = merge(CATALOG["arcee_fusion"], base, [expert], [1.0])
    torch.manual_seed(1)
    assert torch.equal(once, merge(CATALOG["arcee_fusion"], base, [expert], [1.0]))
    assert 0.01 < (once != base).float().mean() < 0.2


def test_graft_imports_the_elements_that_moved_furthest() -> None:
    delta = torch.tensor([1.0, -9.0, 3.0, 0.5, 7.0, -2.0, 0.0, 4.0, -5.0, 6.0])
    check(update("graft", [delta], density=0.2), 0, -9.0, 0, 0, 7.0, 0, 0, 0, 0, 0)
    check(update("graft", [delta], density=0.1, lambda_=0.5), 0, -4.5, 0, 0, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize("name", ["nearswap", "arcee_fusion", "graft"])
def test_an_import_takes_one_expert_and_no_weight(name: str) -> None:
    assert CATALOG[name].experts == (1, 1) and CATALOG[name].weight is None


@pytest.mark.parametrize("name", ["nearswap", "arcee_fusion", "graft"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_reaches_the_result(name: str, bad: float) -> None:
    for where in range(6):
        spoilt = noise(2, 3)
        spoilt.view(-1)[where] = bad
        assert not update(name, [spoilt]).view(-1)[where].isfinite()


@pytest.mark.parametrize("name", ["nearswap", "arcee_fusion", "graft"])
@pytest.mark.parametrize("shape", [(), (1,), (5, 1), (1, 5)])
@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_tiny_tensors_and_deltas_of_zero_stay_finite(name: str, shape: tuple[int, ...], scale: float) -> None:
    base = torch.ones(shape)
    out = merge(CATALOG[name], base, [base + scale], [1.0])
    assert out.shape == shape and out.isfinite().all() and (scale or torch.equal(out, base))


@pytest.mark.parametrize("name", ["nearswap", "arcee_fusion"])
def test_a_tensor_without_elements_stays_one(name: str) -> None:
    assert update(name, [torch.zeros(0, 4)]).shape == (0, 4)
