"""Contests: one result by the compiled kernel and by torch, and the rules against definitions in plain Python."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from merging.kernel import Contest, run
from merging.kernel.choice import VARIABLE
from merging.kernel.competing import Rule
from tests.merging.kernel.programs import DTYPES, model, same

LAW = settings(derandomize=True, database=None, deadline=None, max_examples=30)
RULES = get_args(Rule)
SIZES = [0, 1, 31, 33, 256, 1000, 5000]


@st.composite
def contests(draw: st.DrawFn, rule: Rule, experts: int, size: int) -> Contest:
    """A contest between so many experts for so many elements."""
    weights = tuple(draw(st.sampled_from([1.0, 0.3, 0.0, -0.5])) for _ in range(experts))
    bound, fewest = draw(st.sampled_from([0.0, 1e-5, 0.4, 1.0])), draw(st.integers(0, 4))
    mask = torch.arange(size) % 3 > 0 if draw(st.booleans()) else None
    scale, most = draw(st.sampled_from([1.0, 0.7, -2.5])), draw(st.sampled_from([0.2, 1e9]))
    return Contest(weights, rule, scale, bound, fewest, mask, (0.5, most))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("rule", RULES)
@LAW
@given(data=st.data())
def test_a_contest_has_one_result(rule: Rule, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    size, nasty, dtypes = data.draw(st.sampled_from(SIZES)), data.draw(st.booleans()), st.sampled_from(DTYPES)
    count, stored, result = data.draw(st.integers(1, 5)), data.draw(dtypes), data.draw(dtypes)
    base, *experts = (model(generator, size, data.draw(dtypes), nasty) for _ in range(count + 1))
    contest = data.draw(contests(rule, count, size))
    found = []
    for kernel in ("native", "torch"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(VARIABLE, kernel)
            out = torch.empty_like(base, dtype=result)
            found.append((out, run(contest, out, base, experts, stored)))
    (one, one_finite), (other, other_finite) = found
    assert same(one, other)
    assert one_finite == other_finite


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("rule", RULES)
@settings(LAW, max_examples=10)
@given(data=st.data())
def test_a_contest_is_its_definition(rule: Rule, data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    experts = [model(generator, 40, torch.float32, False) for _ in range(data.draw(st.integers(1, 5)))]
    contest, update = data.draw(contests(rule, len(experts), 40)), torch.empty(40)
    run(contest, update, torch.zeros(40), experts, torch.float32)
    expected = torch.tensor(decided(contest, experts)) * contest.scale
    torch.testing.assert_close(update, expected, rtol=1e-5, atol=1e-6)


def decided(contest: Contest, deltas: list[Tensor]) -> list[float]:
    """u of every element, one at a time."""
    rows = list(zip(*(delta.tolist() for delta in deltas), strict=True))
    if contest.rule == "alone":
        return lone(contest, rows)
    if contest.rule == "erased":
        kept = [True] * len(rows) if contest.mask is None else contest.mask.tolist()
        return [erased(contest, row) if keep else 0.0 for row, keep in zip(rows, kept, strict=True)]
    return [winner(contest, [x * w for x, w in zip(row, contest.weights, strict=True)]) for row in rows]


def winner(contest: Contest, terms: list[float]) -> float:
    total, bound = float(torch.tensor(terms).sum()), contest.bound
    high, low = max(0.0, *terms), min(0.0, *terms)
    if contest.rule == "furthest":
        return high if high >= -low else low
    if contest.rule == "elected":
        return high if total >= 0 else low
    if contest.rule == "clamped":
        return sum(min(max(term, -bound), bound) for term in terms)
    users = sum(abs(term) > abs(total - term) * bound for term in terms)
    return total if users >= contest.fewest else 0.0


def erased(contest: Contest, deltas: tuple[float, ...]) -> float:
    sign = 1 if math.fsum(deltas) >= 0 else -1
    agreeing = [(x, w) for x, w in zip(deltas, contest.weights, strict=True) if x * sign > 0]
    weight = math.fsum(w for _, w in agreeing)
    return math.fsum(x * w for x, w in agreeing) / (weight if abs(weight) >= 1e-6 else 1.0)


def lone(contest: Contest, rows: list[tuple[float, ...]]) -> list[float]:
    weights = contest.weights
    changed = [[i for i, x in enumerate(row) if weights[i] and abs(x) > contest.bound] for row in rows]
    counts = [sum(i in who for who in changed) for i in range(len(weights))]
    own = [sum(who == [i] for who in changed) for i in range(len(weights))]
    r, most = contest.strength
    found = []
    for row, who in zip(rows, changed, strict=True):
        weight = math.fsum(weights[i] for i in who)
        mean = math.fsum(weights[i] * row[i] for i in who) / (weight if abs(weight) >= 1e-6 else 1.0)
        ratio = (counts[who[0]] - own[who[0]]) / own[who[0]] if len(who) == 1 else 0.0
        found.append(mean * (1 + r * min(ratio, most)))
    return found


@pytest.mark.usefixtures("kernel")
def test_the_furthest_carries_nan_and_of_opposites_the_positive_wins() -> None:
    experts = [torch.tensor([1.0, math.nan, -3.0, math.inf]), torch.tensor([-1.0, 1.0, 2.0, -5.0])]
    out = torch.empty(4)
    assert not run(Contest((1.0, 1.0), "furthest"), out, torch.zeros(4), experts, torch.float32)
    assert same(out, torch.tensor([1.0, math.nan, -3.0, math.inf]))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("rule", RULES)
def test_neither_pieces_nor_threads_change_a_bit(rule: Rule, monkeypatch: pytest.MonkeyPatch) -> None:
    generator, size = torch.Generator().manual_seed(1), (1 << 19) + 777
    base, *experts = (model(generator, size, torch.bfloat16, False) for _ in range(3))
    monkeypatch.setenv(VARIABLE, "native")
    mask = torch.rand(size, generator=generator) < 0.5
    contest, found = Contest((0.7, 0.4), rule, 1.0, 0.4, 2, mask, (0.5, 9.0)), []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            out = torch.empty_like(base)
            assert run(contest, out, base, experts, torch.bfloat16)
            found.append(out)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(*found) and not torch.equal(found[0], base)


def test_what_does_not_fit_the_tensor_is_refused() -> None:
    base, out = torch.zeros(4), torch.empty(4)
    with pytest.raises(ValueError, match="different numbers of elements"):
        run(Contest((1.0,), "erased", mask=torch.ones(3, dtype=torch.bool)), out, base, [base], torch.float32)
    with pytest.raises(ValueError, match="one expert per keep or weight"):
        run(Contest((1.0, 1.0), "furthest"), out, base, [base], torch.float32)
    with pytest.raises(ValueError, match="a mask is bool"):
        Contest((1.0,), "erased", mask=torch.ones(4))
    with pytest.raises(ValueError, match="bound"):
        Contest((1.0,), "clamped", bound=-1.0)
