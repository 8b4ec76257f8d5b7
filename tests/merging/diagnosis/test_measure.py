"""The figures agree with numbers worked out by hand, with planted directions and with sums over parts."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from merging.diagnosis import measure
from merging.diagnosis.magnitudes import bins_of, count, edges, quantiles, share_above, top_bins
from merging.diagnosis.measure import measure_tensor
from merging.diagnosis.summary import summarise
from tests.merging.diagnosis.planted import LAYERS, base_tensors, diagnosed, tuned

BASE = torch.tensor([3.0, 4.0, 0.0, 0.0])


def test_sign_conflict_by_hand() -> None:
    deltas = torch.tensor([[1.0, -2.0, 0.0, 3.0]]), torch.tensor([[1.0, 4.0, 5.0, -1.0]])
    sums, _ = measure_tensor(BASE[None], [BASE + delta for delta in deltas])
    # both move elements 0, 1 and 3; they disagree in 1 and 3; |τ_i τ_j| is 1, 8 and 3
    assert sums.moved[0, 1] == 3 and sums.opposed[0, 1] == 2 and sums.conflicts[0, 1] == pytest.approx(2 / 3)
    assert sums.weighted_conflicts[0, 1] == pytest.approx(11 / 12)
    assert sums.cosines[0, 1] == pytest.approx((1 - 8 - 3) / (14 * 43) ** 0.5)
    assert sums.unchanged.tolist() == [1, 0] and sums.absolute.tolist() == [6, 11]
    assert sums.relative_norms.tolist() == pytest.approx([14**0.5 / 5, 43**0.5 / 5])
    assert sums.cosines_to_base[0] == pytest.approx(torch.cosine_similarity(BASE + deltas[0][0], BASE, dim=0).item())


def test_the_largest_tenth_and_what_two_share_of_it_by_hand() -> None:
    one, other = torch.zeros(40), torch.zeros(40)
    one[:6], other[3:9] = torch.tensor([9.0, 8, 7, 6, 1, 1]), torch.tensor([6.0, 7, 8, 9, 1, 1])
    sums, _ = measure_tensor(torch.zeros(40), [one, other])
    assert sums.top.tolist() == [4, 4]  # elements 0 to 3 and 3 to 6
    assert sums.overlaps[0, 1] == 1 / 4 and sums.chance_overlaps[0, 1] == pytest.approx(4 * 4 / 40 / 4)


def test_fewer_moved_elements_than_a_tenth_are_all_among_the_largest() -> None:
    expert = torch.zeros(100)
    expert[:2] = 1.0
    sums, _ = measure_tensor(torch.zeros(100), [expert, torch.zeros(100)])
    assert sums.top.tolist() == [2, 0] and sums.overlaps[0, 1] == 0


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(st.integers(1, 40), st.integers(0, 2**31), st.sampled_from([torch.float32, torch.bfloat16, torch.float64]))
def test_chunks_change_nothing_but_rounding(size: int, seed: int, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(seed)
    base, *experts = (torch.randn(size, 3, generator=generator).to(dtype) for _ in range(4))
    whole, counts = measure_tensor(base, experts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "_CHUNK", 7)
        pieces, again = measure_tensor(base, experts)
    assert torch.equal(counts, again)
    for field in fields(whole):
        torch.testing.assert_close(getattr(whole, field.name), getattr(pieces, field.name))


def test_an_expert_that_lacks_the_tensor_adds_nothing() -> None:
    with_it, _ = measure_tensor(BASE, [BASE + 1])
    sums, counts = measure_tensor(BASE, [BASE + 1, None])
    assert sums.elements.tolist() == [4, 0] and sums.base.tolist() == [25, 0] and sums.unchanged[1] == 0
    assert sums.norms[0] == with_it.norms[0] and sums.norms[1] == 0 and counts[1].sum() == 0


def test_what_is_not_finite_is_counted_and_leaves_the_rest_alone() -> None:
    broken, base = BASE + 1, BASE.clone()
    broken[0], broken[1], base[3] = float("nan"), float("-inf"), float("inf")
    sums, counts = measure_tensor(base, [broken, BASE + 1])
    assert sums.broken.tolist() == [1, 2, 0]
    assert sums.absolute.tolist() == [1, 3] and counts.sum(1).tolist() == [4, 4]


def test_bins_hold_their_numbers_and_give_their_quantiles() -> None:
    values = torch.arange(1, 1001).float()[None] / 1000
    counts = count(bins_of(-values))
    assert counts.sum() == 1000 and quantiles(counts[0], [0.5, 1.0]) == pytest.approx([0.5, 1.0], rel=0.01)
    assert share_above(counts[0], 0.25) == pytest.approx(0.75, abs=0.005)
    first = int(top_bins(counts, 0.1)[0])
    assert edges([first])[0] == pytest.approx(0.9, rel=0.01) and counts[0, first:].sum() >= 100
    assert quantiles(torch.zeros_like(counts[0]), [0.5]) == [0.0] and share_above(torch.zeros_like(counts[0]), 1) == 0


def mixed(
    base: dict[str, Tensor], first: dict[str, Tensor], second: dict[str, Tensor], cosine: float
) -> dict[str, Tensor]:
    """A model whose delta has that cosine with the first's, if both deltas are orthogonal and as long."""
    sine = (1 - cosine**2) ** 0.5
    return {n: b + cosine * (first[n] - b) + sine * (second[n] - b) for n, b in base.items()}


@pytest.mark.parametrize("cosine", [-0.5, 0.0, 0.7])
def test_a_planted_cosine_is_measured_everywhere(tmp_path: Path, cosine: float) -> None:
    base = base_tensors()
    one, other = tuned(base, 1), tuned(base, 2)
    found = diagnosed(tmp_path, base, one=one, two=mixed(base, one, other, cosine))
    summary = summarise(found, LAYERS)
    assert summary.pairs[0].cosine == pytest.approx(cosine, abs=0.02)
    assert {m: p[0].cosine for m, p in summary.modules.items()} == pytest.approx(
        dict.fromkeys(("attention", "mlp", "other"), cosine), abs=0.04
    )
    assert all(group.pairs[0].cosine == pytest.approx(cosine, abs=0.3) for group in summary.groups)


def test_groups_name_layers_and_their_norms_add_up(tmp_path: Path) -> None:
    base = base_tensors()
    expert = dict(base) | {n: t + 0.01 for n, t in base.items() if "layers.1.mlp" in n}
    summary = summarise(diagnosed(tmp_path, base, one=expert), 2)
    assert list(dict.fromkeys(group.layers for group in summary.groups)) == ["before", "0-1", "2", "after"]
    shares = {(group.layers, group.module): group.norm_shares["one"] for group in summary.groups}
    assert shares.pop(("0-1", "mlp")) == pytest.approx(1) and not any(shares.values())
    (one,) = summary.experts
    assert len(one.frozen) == len(base) - 3 and one.tensors == len(base)
    assert 0 < one.unchanged < 1 and sum(s for _, s in one.histogram) == pytest.approx(1 - one.unchanged)
