"""PCB-Merging beside a plain version that sorts, and what follows from its definition."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from merging.catalog import CATALOG, implementation
from tests.merging.driver import context_of, parameters_of
from tests.merging.updates import noise, update


def plain(deltas: Sequence[Tensor], weights: Sequence[float], ratio: float, clip: float) -> Tensor:
    """The definition in float64, dense, with sorted values."""
    d = torch.stack(list(deltas)).double()
    experts, size = d.shape

    def normalised(values: Tensor, low: Tensor) -> Tensor:
        return (values - low) / (values.amax(1, keepdim=True) - low)

    ordered, tail = d.abs().sort(dim=1).values, int(clip * size)
    magnitudes = d.abs().clamp(ordered[:, tail, None], ordered[:, size - 1 - tail, None])
    standing = d.sign() * normalised(magnitudes, magnitudes.amin(1, keepdim=True))
    agreement = torch.tanh(standing[:, None] * standing[None]).sum(1)
    balance = torch.exp(experts * standing**2) * agreement
    threshold = balance.sort(dim=1).values[:, size - 1 - int(ratio * size), None]
    score = normalised(balance.clamp(threshold), threshold)
    scaled = torch.tensor(weights)[:, None] * d.sign() * magnitudes * score
    return (scaled.sum(0) / score.sum(0).clamp_min(1e-12)).float()


@pytest.mark.parametrize(("ratio", "clip"), [(0.1, 0.01), (0.3, 0.0), (0.2, 0.05)])
@pytest.mark.parametrize("experts", [1, 2, 5])
def test_it_is_the_definition(experts: int, ratio: float, clip: float) -> None:
    deltas, weights = list(noise(experts, 1000) + 0.5 * noise(1000, seed=1)), [1.0, 0.5, 2.0, 0.0, 1.5][:experts]
    found = update("pcb", deltas, weights, ratio=ratio, clip=clip, lambda_=1.0)
    # where all but dropped an element, its shares are quotients of numbers next to 0
    assert_close(found, plain(deltas, weights, ratio, clip), rtol=1e-3, atol=1e-4)


def test_equal_experts_give_the_delta_where_it_is_kept() -> None:
    delta = noise(10, 20)
    kept = update("pcb", [delta] * 3, ratio=0.1, clip=0.0, lambda_=1.0)
    largest = delta.abs() >= delta.abs().flatten().sort().values[-20]
    assert_close(kept, delta * largest)


def test_only_the_least_element_is_dropped_where_all_are_kept() -> None:
    delta = noise(100)
    found = update("pcb", [delta], ratio=1.0, clip=0.0, lambda_=1.0)
    dropped = found == 0.0
    assert int(dropped.sum()) == 1 and dropped[delta.abs().argmin()]
    assert_close(found[~dropped], delta[~dropped])


def test_the_tails_of_the_magnitudes_are_clipped() -> None:
    delta = torch.arange(1.0, 101.0)
    found = update("pcb", [delta], ratio=0.1, clip=0.02, lambda_=1.0)
    assert found.amax() == 98.0 and found[:90].abs().amax() == 0.0


def test_experts_that_disagree_take_each_other_s_weight() -> None:
    ours, rival = torch.tensor([1.0, 3.0, 3.0, 0.5]), torch.tensor([1.0, 3.0, -3.0, 0.5])
    found = update("pcb", [ours, rival], ratio=0.25, clip=0.0, lambda_=1.0)
    assert_close(found, torch.tensor([0.0, 3.0, 0.0, 0.0]))


def test_deltas_without_a_range_compete_by_agreement_alone() -> None:
    first, second = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert_close(update("pcb", [first], ratio=0.25, lambda_=1.0), first)
    assert_close(update("pcb", [first, second], ratio=1.0, lambda_=1.0), torch.tensor([1.0, 0.0, 0.0, -1.0]))


def test_weights_and_lambda_scale() -> None:
    deltas = list(noise(3, 200))
    once = update("pcb", deltas, lambda_=1.0)
    assert_close(update("pcb", deltas, [2.0] * 3, lambda_=1.5), 3 * once)
    assert_close(update("pcb", deltas), 1.2 * once)  # the authors' λ


def test_what_is_prepared_holds_the_kept_elements_alone() -> None:
    row, deltas = CATALOG["pcb"], noise(2, 30, 40)
    base = torch.zeros(30, 40)
    for scores in implementation(row).prepare(deltas, parameters_of(row), context_of(base, list(deltas))):
        assert scores.index.dtype == torch.int32 and scores.index.numel() == scores.score.numel() <= 120
        assert scores.score.amax() == 1.0 and (scores.score > 0).all()
