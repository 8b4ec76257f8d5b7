"""CABS by hand, and beside a plain version that goes through the blocks one by one."""

import random

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging.catalog import CATALOG, implementation
from tests.merging.driver import context_of, merge, parameters_of
from tests.merging.updates import A, B, check, noise, update


def plain(deltas: Tensor, weights: list[float], density: float, m: int) -> Tensor:
    """The definition in loops, the experts in the order given: the heaviest first."""
    out = torch.zeros_like(deltas[0])
    for start in range(0, deltas.shape[1], m):
        places = range(start, min(start + m, deltas.shape[1]))
        taken: set[int] = set()
        for delta, weight in zip(deltas, weights, strict=True):
            ranked = sorted(places, key=lambda i: (i in taken, -abs(float(delta[i]))))
            chosen = ranked[: max(1, int(density * len(places)))]
            out[chosen] += weight * delta[chosen]
            taken.update(chosen)
    return out


def test_each_keeps_the_largest_that_are_left() -> None:
    # one block of 4, 2 each: A keeps [4, ·, −2, ·], B of the rest [·, 6, ·, −½]
    check(update("cabs", [A, B], [1.0, 0.5], density=0.5), 4.0, 3.0, -2.0, -0.25)
    check(update("cabs", [A, B], [1.0, 0.5], density=0.5, lambda_=2.0), 8.0, 6.0, -4.0, -0.5)


def test_the_heaviest_chooses_first_unless_another_order_is_asked_for() -> None:
    # B first: [2, 6, ·, ·], then A: [·, ·, −2, −1]
    check(update("cabs", [A, B], [0.5, 1.0], density=0.5), 2.0, 6.0, -1.0, -0.5)
    check(update("cabs", [A, B], [1.0, 0.5], density=0.5, order="lightest"), 1.0, 3.0, -2.0, -1.0)


def test_equal_weights_choose_by_fingerprint_in_any_order_of_the_experts() -> None:
    base, row = torch.zeros(4), CATALOG["cabs"]
    first = merge(row, base, [A, B], [1.0, 1.0], {"density": 0.5}, fingerprints=("a", "b"))
    check(first, 4.0, 6.0, -2.0, -0.5)
    assert torch.equal(first, merge(row, base, [B, A], [1.0, 1.0], {"density": 0.5}, fingerprints=("b", "a")))
    other = merge(row, base, [A, B], [1.0, 1.0], {"density": 0.5}, fingerprints=("b", "a"))
    check(other, 2.0, 6.0, -2.0, -1.0)


def test_too_few_free_elements_are_made_up_by_the_largest_taken_ones() -> None:
    # 3 each: A keeps [4, ·, −2, −1]; B has the 6 for itself, and of the others 2 and 1
    check(update("cabs", [A, B], [1.0, 0.5], density=0.75), 5.0, 3.0, -1.5, -1.0)


def test_all_elements_are_task_arithmetic() -> None:
    deltas = noise(3, 7, 11)
    assert_close(update("cabs", list(deltas), [1.0, 0.5, -1.0], density=1.0), deltas[0] + 0.5 * deltas[1] - deltas[2])


def test_every_block_keeps_its_share_and_experts_do_not_overlap() -> None:
    deltas = noise(3, 2 * 32 + 8).abs()
    kept = [update("cabs", list(deltas), [float(i == t) for i in range(3)], density=0.25, m=32) for t in range(3)]
    assert [int(x.count_nonzero()) for x in kept[0].split(32)] == [8, 8, 2]
    joint = update("cabs", list(deltas), [1.0, 0.9, 0.8], density=0.25, m=32)
    assert [int(x.count_nonzero()) for x in joint.split(32)] == [24, 24, 6]


@pytest.mark.parametrize("density", [0.1, 0.25, 0.4, 0.7])
@pytest.mark.parametrize("size", [1, 31, 64, 200])
@pytest.mark.parametrize("m", [32, 512])
def test_it_is_the_definition(density: float, size: int, m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merging.methods.cabs._BLOCKS", 2)
    deltas, weights = noise(4, size), [1.0, 0.75, 0.5, 0.25]
    order = list(range(4))
    random.Random(0).shuffle(order)
    found = update("cabs", [deltas[i] for i in order], [weights[i] for i in order], density=density, m=m)
    assert_close(found, plain(deltas, weights, density, m))


@pytest.mark.parametrize(("m", "kind"), [(256, torch.uint8), (512, torch.int16)])
def test_what_is_prepared_fits_any_order_and_density(m: int, kind: torch.dtype) -> None:
    row, deltas = CATALOG["cabs"], noise(2, 3, 300)
    prepared = implementation(row).prepare(
        deltas, parameters_of(row, {"m": m}), context_of(torch.zeros(3, 300), list(deltas))
    )
    assert prepared.ranks.dtype == kind
    assert all(torch.equal(block.long().sort().values, torch.arange(m)) for block in prepared.ranks.view(-1, m))
