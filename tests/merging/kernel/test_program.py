"""What programs mean, against numbers worked by hand, by the compiled kernel and by torch."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from merging.kernel import Chance, Cut, Join, Keep, Program, cut, draw, ranks, run, weighted_sum
from tests.merging.kernel.reference import agreeing_sums, band_mask, magnitude_mask, mean_

pytestmark = pytest.mark.usefixtures("kernel")
BASE = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
DELTAS = torch.tensor([[4.0, -4.0, 2.0, 0.0, -1.0], [-1.0, 1.0, 2.0, 3.0, 1.0], [2.0, -9.0, 0.0, -3.0, 0.0]])


def built(
    keeps: Sequence[Keep], join: Join, deltas: Tensor = DELTAS, scale: float = 1.0, divisor: float = 1.0
) -> Tensor:
    base = torch.zeros(deltas.shape[1:]) if deltas is not DELTAS else BASE
    out = torch.empty_like(base)
    program = Program(tuple(keeps), join, scale, divisor)
    assert run(program, out, base, list(base + deltas), torch.float32) == bool(out.isfinite().all())
    return out


def test_a_sum_is_scaled_divided_and_added_to_the_base() -> None:
    keeps = [Keep(1.0), Keep(2.0), Keep(3.0, factor=0.5)]
    # element 0: 4 − 2 + 3 = 5; 1: −4 + 2 − 13.5; 2: 2 + 4; 3: 6 − 4.5; 4: −1 + 2
    assert built(keeps, "sum").tolist() == [15.0, 4.5, 36.0, 41.5, 51.0]
    assert built(keeps, "sum", scale=2.0, divisor=4.0).tolist() == [12.5, 12.25, 33.0, 40.75, 50.5]


def test_a_mean_is_over_those_who_kept_the_element() -> None:
    first = Cut(torch.tensor([4.0]), torch.tensor([0]))  # of the two 4s the first
    # element 0: (4 − 2) / (1 + 2); others: expert 1 alone, divided by its own weight
    mean = built([Keep(1.0, above=first), Keep(2.0)], "mean", DELTAS[:2])
    assert torch.allclose(mean, torch.tensor([2 / 3, 1.0, 2.0, 3.0, 1.0]))


def test_a_mean_over_nobody_is_the_base() -> None:
    nobody = cut(BASE, BASE + DELTAS[0], 0)
    joins: tuple[Join, ...] = ("mean", "elected_mean", "elected_sum")
    for join in joins:
        assert torch.equal(built([Keep(0.5, above=nobody)] * 3, join), BASE)


def test_the_elected_sign_and_who_agrees() -> None:
    keeps = [Keep(1.0), Keep(2.0), Keep(3.0)]
    # element 0: 4 − 2 + 6: experts 0, 2 agree: 10, weight 4; 1: −4 + 2 − 27: −31, weight 4; 2: 6, weight 3;
    # 3: 6 − 9: −9, weight 3; 4: −1 + 2: 2, weight 2
    assert (built(keeps, "elected_sum") - BASE).tolist() == [10.0, -31.0, 6.0, -9.0, 2.0]
    assert (built(keeps, "elected_mean") - BASE).tolist() == [2.5, -7.75, 2.0, -3.0, 1.0]


def test_a_tied_vote_elects_plus() -> None:
    assert built([Keep(1.0), Keep(1.0)], "elected_sum", torch.tensor([[3.0], [-3.0]])).tolist() == [3.0]


def test_a_weight_of_0_neither_votes_nor_agrees() -> None:
    assert built([Keep(0.0), Keep(0.5)], "elected_mean", torch.tensor([[-100.0], [1.0]])).tolist() == [1.0]


@pytest.mark.parametrize(("density", "gamma"), [(0.2, 0.0), (0.5, 0.2), (0.9, 0.05)])
def test_ties_and_breadcrumbs_are_what_their_masks_make(density: float, gamma: float) -> None:
    generator = torch.Generator().manual_seed(3)
    deltas, weights = torch.randn(3, 5000, generator=generator).mul_(8).round_().div_(8), [0.3, 0.5, 0.9]
    base, size = torch.zeros(5000), 5000
    counts = int(gamma * size), int(gamma * size) + int(density * size)
    masks = torch.stack([band_mask(d, density, gamma) if gamma else magnitude_mask(d, density) for d in deltas])
    keeps = [
        Keep(w, above=cut(base, d, counts[1]), below=cut(base, d, counts[0]) if gamma else None)
        for w, d in zip(weights, deltas, strict=True)
    ]
    assert torch.equal(built(keeps, "elected_mean", deltas), mean_(*agreeing_sums(deltas, masks, weights)))


def test_a_draw_keeps_what_its_numbers_say_and_divides_by_the_probability() -> None:
    delta = torch.arange(1.0, 1001.0)[None]
    kept = draw(9, 0, 1000) < 0.4
    drawn = built([Keep(1.0, chance=Chance(9, 0.4, 0.4))], "sum", delta)
    assert torch.equal(drawn, delta[0] * kept * torch.tensor(1 / 0.4))
    bare = built([Keep(1.0, chance=Chance(9, 0.4, 0.4, rescale=False))], "sum", delta)
    assert torch.equal(bare, delta[0] * kept)


def test_a_ranked_draw_keeps_large_elements_more_often() -> None:
    delta = torch.arange(1.0, 5001.0).repeat(2)[None]
    rank = ranks(torch.zeros(10_000), delta[0], 5000)
    chance = Chance(9, 0.1, 0.9, rank, 5000)
    drawn = built([Keep(1.0, chance=chance)], "sum", delta)
    share = (drawn != 0).view(2, 10, 500).float().mean(dim=(0, 2))
    assert torch.allclose(share, torch.linspace(0.14, 0.86, 10), atol=0.06)
    assert drawn.sum().item() == pytest.approx(delta.sum().item(), rel=0.05)  # unbiased
    one = Chance(9, 0.2, 0.6, torch.zeros(10_000, dtype=torch.uint16), 1)
    assert (built([Keep(1.0, chance=one)], "sum", delta) != 0).float().mean().item() == pytest.approx(0.4, abs=0.03)


def test_nan_reaches_the_result_even_where_it_is_dropped() -> None:
    joins: tuple[Join, ...] = ("sum", "mean", "elected_sum", "elected_mean")
    base, expert = torch.zeros(3), torch.tensor([math.nan, math.inf, 1.0])
    dropped = Keep(1.0, above=Cut(torch.tensor([math.inf]), torch.tensor([-1])), below=cut(base, expert, 3))
    for join in joins:
        out = torch.empty(3)
        assert not run(Program((dropped,), join), out, base, [expert], torch.float32)
        assert out.isnan().tolist() == [True, True, False]


def test_a_result_too_large_for_the_stored_dtype_is_not_finite() -> None:
    out, base, expert = torch.empty(2), torch.zeros(2), torch.tensor([1.0, 60000.0])
    double = Program((Keep(2.0),), "sum")
    assert run(double, out, base, [expert], torch.bfloat16)
    assert not run(double, out, base, [expert], torch.float16)
    assert not weighted_sum(out, [expert], [2.0], torch.float16)


def test_a_result_is_rounded_to_the_stored_dtype_before_it_is_widened() -> None:
    out, base, expert = torch.empty(1), torch.ones(1), torch.tensor([1.0 + 2**-10])
    assert run(Program((Keep(1.0),), "sum"), out, base, [expert], torch.bfloat16)
    assert out.item() == 1.0


def test_one_model_of_coefficient_1_keeps_its_bits_and_the_others_are_not_read() -> None:
    poison, model = torch.full((4,), math.nan), torch.tensor([-0.0, 1e-45, 3.0, -7.5])
    out = torch.empty(4)
    assert weighted_sum(out, [poison, model, poison], [0.0, 1.0, 0.0], torch.float32)
    assert torch.equal(out.view(torch.int32), model.view(torch.int32))
    assert weighted_sum(out, [poison], [0.0], torch.float32)
    assert out.tolist() == [0.0] * 4


def test_coefficients_may_differ_from_row_to_row() -> None:
    out, one, other = torch.empty(2, 3), torch.ones(2, 3), torch.full((2, 3), 10.0)
    assert weighted_sum(out, [one, other], torch.tensor([[1.0, 2.0], [0.5, 0.0]]), torch.float32)
    assert out.tolist() == [[6.0] * 3, [2.0] * 3]


@pytest.mark.parametrize(("low", "high"), [(-0.1, 0.5), (0.5, 1.1), (0.0, 0.5)])
def test_a_chance_without_sense_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        Chance(1, low, high)


def test_a_cut_without_an_index_per_value_is_refused() -> None:
    with pytest.raises(ValueError, match="2 values, but 1 indices"):
        Cut(torch.zeros(2), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="int64"):
        Cut(torch.zeros(2), torch.zeros(2, dtype=torch.int32))
