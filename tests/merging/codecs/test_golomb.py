"""The parameter against all others, lengths against the theory, and any indices there and back."""

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from merging.codecs.golomb import Gaps, check, decode, encode, rice_parameter
from tests.merging.codecs.planted import QUICK

SHARES = [0.5 * 0.97**step for step in range(600)] + [0.55, 0.6, 0.7, 0.9, 0.999, 1.0]


def expected_bits(share: float, parameter: int) -> float:
    """Bits of a gap on average: b + Σ_j P(gap ≥ j 2^b) = b + 1 / (1 − (1 − share)^(2^b))."""
    return parameter + 1 / -math.expm1(math.log1p(-share) * 2**parameter) if share < 1 else parameter + 1.0


def total_bits(gaps: Gaps) -> int:
    return 8 * (gaps.high.numel() + gaps.low.numel())


def test_the_parameter_is_the_best_there_is() -> None:
    for share in SHARES:
        best = min(range(40), key=lambda b: expected_bits(share, b))
        assert expected_bits(share, rice_parameter(share)) == pytest.approx(expected_bits(share, best), rel=1e-12)


def drawn(share: float, size: int = 1 << 18) -> Tensor:
    return (torch.rand(size, generator=torch.Generator().manual_seed(0)) < share).nonzero().flatten()


@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.2, 0.3, 0.5])
def test_real_lengths_are_the_expected_ones_and_near_the_entropy(share: float) -> None:
    indices = drawn(share)
    bits = total_bits(encode(indices, 1 << 18)) / len(indices)
    assert bits == pytest.approx(expected_bits(share, rice_parameter(share)), rel=0.01)
    entropy = -math.log2(share) - (1 - share) / share * math.log2(1 - share)
    assert 0.99 < bits / entropy < 1.05


@pytest.mark.parametrize("share", [0.05, 0.1, 0.2, 0.3, 0.5])
def test_no_other_parameter_codes_real_gaps_shorter(share: float) -> None:
    gaps = drawn(share).diff(prepend=torch.tensor([-1])) - 1
    lengths = [len(gaps) * (b + 1) + int((gaps >> b).sum()) for b in range(12)]
    assert lengths[rice_parameter(share)] <= 1.001 * min(lengths)


def test_a_code_by_hand() -> None:
    # 3 of 16: b = 1 + ⌊log2(0.481 / 0.208)⌋ = 2; gaps 1, 6, 4 are 0|01, 1|10, 1|00; high 1 01 01, low planes 100, 010
    gaps = encode(torch.tensor([1, 8, 13]), 16)
    assert gaps.high.tolist() == [0b10101]
    assert gaps.low.tolist() == [[0b001], [0b010]]
    assert decode(gaps).tolist() == [1, 8, 13]


@QUICK
@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1)))))
def test_indices_come_back(drawn: tuple[int, set[int]]) -> None:
    size, chosen = drawn
    gaps = check(encode(torch.tensor(sorted(chosen), dtype=torch.int64), size), size)
    assert decode(gaps).tolist() == sorted(chosen) and gaps.count == len(chosen)


@QUICK
@given(st.sets(st.integers(0, (1 << 45) - 1), max_size=50))
def test_indices_beyond_32_bits_come_back(chosen: set[int]) -> None:
    indices = torch.tensor(sorted(chosen), dtype=torch.int64)
    assert torch.equal(decode(check(encode(indices, 1 << 45), 1 << 45)), indices)


def test_all_and_none() -> None:
    everything = encode(torch.arange(1000), 1000)
    assert everything.low.shape == (0, 125) and total_bits(everything) == 1000
    assert torch.equal(decode(everything), torch.arange(1000))
    assert total_bits(encode(torch.arange(0), 1000)) == 0


GOOD = encode(torch.tensor([1, 8, 13]), 16)


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        ({"count": 4}, "high has 3 indices, not 4"),
        ({"count": 2}, "high has 3 indices, not 2"),
        ({"count": 9}, r"low has the shape \[2, 1\], not \[2, 2\]"),
        ({"high": torch.tensor([0b1010100], dtype=torch.uint8)}, "beyond the 16"),
        ({"high": torch.tensor([0b10101, 0], dtype=torch.uint8)}, "ends with zeros"),
        ({"high": torch.tensor([0b10101])}, "high is of torch.int64, not torch.uint8"),
        ({"high": torch.tensor(1, dtype=torch.uint8)}, "high has the shape"),
        ({"low": torch.tensor([[0b111], [0b111]], dtype=torch.uint8)}, "beyond the 16"),
        ({"low": torch.zeros(3, 1, dtype=torch.uint8)}, "beyond the 16"),
        ({"low": torch.zeros(63, 1, dtype=torch.uint8)}, "63 bits a gap"),
        ({"low": torch.tensor(1, dtype=torch.uint8)}, "low has the shape"),
    ],
)
def test_codes_that_do_not_fit_are_refused_undecoded(harm: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check(replace(GOOD, **harm), 16)


def test_the_last_element_is_no_index_too_far() -> None:
    code = encode(torch.tensor([0, 99]), 100)
    check(code, 100)
    with pytest.raises(ValueError, match="the last index lies beyond the 99 elements"):
        check(code, 99)
