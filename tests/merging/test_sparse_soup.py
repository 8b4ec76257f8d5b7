"""Averages of pruned experts: what is 0 stays 0 to the bit, and other zeros are refused."""

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging.catalog import CATALOG
from merging.errors import InvalidRecipe
from tests.merging.driver import merge
from tests.merging.updates import noise

ROW = CATALOG["sparse_soup"]
BASE = noise(20, 30, seed=9)


def pruned(seed: int, mask_seed: int) -> Tensor:
    """An expert of which about two thirds are 0."""
    return (BASE + noise(20, 30, seed=seed)) * (noise(20, 30, seed=mask_seed) > 0.4)


def zeros(tensor: Tensor) -> int:
    return int((tensor == 0.0).sum())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_is_as_sparse_as_its_parents(dtype: torch.dtype) -> None:
    experts = [pruned(seed, 0).to(dtype) for seed in (1, 2, 3)]
    out = merge(ROW, BASE.to(dtype), experts, [1.0, 0.5, 0.3])
    assert torch.equal(out == 0.0, experts[0] == 0.0) and 300 < zeros(out) < 500
    expected = (experts[0].float() + 0.5 * experts[1].float() + 0.3 * experts[2].float()) / 1.8
    assert_close(out, expected, rtol=1e-5, atol=1e-6)


def test_experts_with_other_zeros_are_refused() -> None:
    with pytest.raises(
        InvalidRecipe, match=r"'shared' needs experts pruned alike, but \d+ elements of layers.0.w"
    ) as caught:
        merge(ROW, BASE, [pruned(1, 0), pruned(2, 5)], [1.0, 1.0], name="layers.0.w")
    assert "intersection" in str(caught.value) and "union" in str(caught.value)


def test_an_intersection_of_masks_is_sparser_and_a_union_denser() -> None:
    experts = [pruned(1, 0), pruned(2, 5), pruned(3, 6)]
    parent = zeros(experts[0])
    narrow = merge(ROW, BASE, experts, [1.0, 1.0, 1.0], {"mask": "intersection"})
    wide = merge(ROW, BASE, experts, [1.0, 1.0, 1.0], {"mask": "union"})
    assert zeros(wide) < parent < zeros(narrow)
    mean = sum(experts, torch.zeros(20, 30)) / 3
    assert_close(wide, mean, rtol=1e-5, atol=1e-6)
    assert torch.equal(narrow == 0.0, torch.stack(experts).eq(0.0).any(0))
    assert_close(narrow, mean * (narrow != 0.0), rtol=1e-5, atol=1e-6)


def test_experts_without_zeros_are_averaged() -> None:
    experts = [BASE + noise(20, 30, seed=seed) for seed in (1, 2)]
    assert_close(merge(ROW, BASE, experts, [3.0, 1.0]), 0.75 * experts[0] + 0.25 * experts[1])


def test_a_negative_zero_is_a_zero() -> None:
    experts = [torch.tensor([0.0, 1.0]), torch.tensor([-0.0, 3.0])]
    assert torch.equal(merge(ROW, torch.tensor([0.7, 0.7]), experts, [1.0, 1.0]), torch.tensor([0.0, 2.0]))


@pytest.mark.parametrize("mask", ["shared", "intersection", "union"])
def test_the_order_of_the_experts_does_not_matter_and_nothing_given_changes(mask: str) -> None:
    experts = [pruned(seed, 0 if mask == "shared" else seed) for seed in (1, 2, 3)]
    copies = [expert.clone() for expert in experts]
    out = merge(ROW, BASE, experts, [1.0, 0.5, 0.0], {"mask": mask})
    assert_close(out, merge(ROW, BASE, experts[::-1], [0.0, 0.5, 1.0], {"mask": mask}))
    assert all(torch.equal(x, y) for x, y in zip(experts, copies, strict=True))


def test_nan_beside_a_zero_is_not_hidden() -> None:
    experts = [torch.tensor([0.0, 1.0]), torch.tensor([math.nan, 3.0])]
    for order in (experts, experts[::-1]):
        out = merge(ROW, torch.ones(2), order, [1.0, 1.0], {"mask": "intersection"})
        assert out[0].isnan() and out[1] == 2.0
