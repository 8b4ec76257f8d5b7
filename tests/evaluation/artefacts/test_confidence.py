"""Temperatures and calibration errors: against exact minimisers, softmax itself, and numbers worked out by hand."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evaluation.artefacts.confidence import WIDEST, calibration_error, join, predictions

QUICK = settings(max_examples=50, deadline=None, derandomize=True, database=None)
SEEDS = st.integers(0, 2**32)


def asked(seed: int, count: int = 60, words: int = 12, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Logits [count, words] and what comes, drawn from them at temperature 1; scaled afterwards."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2.0 * torch.randn((count, words), generator=generator)
    return logits * scale, torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]


def exact(logits: Tensor, right: Tensor) -> float:
    """The temperature at which the derivative of −Σ log p by 1/T is 0, in float64."""
    below = logits.double() - logits.double().max(-1, keepdim=True).values
    own, low, high = below.gather(1, right[:, None])[:, 0], 1e-6, 1e6
    for _ in range(200):
        middle = math.sqrt(low * high)
        rising = float((((middle * below).softmax(-1) * below).sum(-1) - own).sum()) > 0.0
        low, high = (low, middle) if rising else (middle, high)
    return 1.0 / low


@QUICK
@given(seed=SEEDS, scale=st.floats(0.3, 6.0))
def test_the_best_temperature_is_exact(seed: int, scale: float) -> None:
    logits, right = asked(seed, scale=scale)
    assert predictions(logits, right).best_temperature() == pytest.approx(exact(logits, right), rel=1e-4)


@QUICK
@given(seed=SEEDS, factor=st.floats(0.3, 5.0))
def test_scaled_logits_have_a_scaled_temperature(seed: int, factor: float) -> None:
    logits, right = asked(seed, scale=1.0)
    before, after = predictions(logits, right), predictions(factor * logits, right)
    assert after.best_temperature() == pytest.approx(factor * before.best_temperature(), rel=1e-3)
    assert after.error(after.best_temperature()) == pytest.approx(before.error(before.best_temperature()), abs=0.04)


@QUICK
@given(seed=SEEDS, temperature=st.floats(1.0 / WIDEST, WIDEST))
def test_every_temperature_is_found_without_the_logits(seed: int, temperature: float) -> None:
    logits, right = asked(seed, count=7)
    found, scaled = predictions(logits, right), (logits.double() / temperature).log_softmax(-1)
    assert found.loss(temperature) == pytest.approx(-float(scaled.gather(1, right[:, None]).mean()), abs=1e-4)
    torch.testing.assert_close(found.confidence(temperature), scaled.exp().max(-1).values, rtol=0, atol=1e-4)
    assert found.correct.tolist() == (logits.argmax(-1) == right).tolist()


def test_what_is_drawn_at_temperature_1_has_temperature_1() -> None:
    for seed in range(5):
        logits, right = asked(seed, count=4000, scale=1.0)
        shares = logits.double().softmax(-1)
        mean = (shares * logits).sum(-1, keepdim=True)
        error = float((shares * (logits - mean).square()).sum()) ** -0.5  # of 1/T, from the Fisher information
        assert error < 0.02
        found = predictions(logits, right)
        assert abs(1.0 / found.best_temperature() - 1.0) < 4 * error
        assert abs(1.0 / predictions(1.3 * logits, right).best_temperature() - 1.0) > 4 * error
        assert found.error(1.0) < 0.03 < 0.06 < predictions(2.0 * logits, right).error(1.0)


def test_always_right_and_always_last_have_no_temperature_but_the_ends() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.0, 3.0, 1.0]])
    assert predictions(logits, torch.tensor([0, 1])).best_temperature() == 1.0 / WIDEST
    assert predictions(logits, torch.tensor([2, 0])).best_temperature() == WIDEST


@pytest.mark.parametrize("nothing", [-math.inf, torch.finfo(torch.float32).min])
def test_tokens_that_cannot_come_change_nothing(nothing: float) -> None:
    logits, right = asked(0)
    padded = torch.cat([logits, torch.full((len(logits), 3), nothing)], dim=1)
    assert predictions(padded, right).best_temperature() == predictions(logits, right).best_temperature()


def test_parts_are_the_whole() -> None:
    logits, right = asked(0)
    whole = predictions(logits, right)
    parts = join([predictions(logits[:9], right[:9]), predictions(logits[9:], right[9:])])
    assert len(parts) == len(whole) == 60
    assert parts.best_temperature() == pytest.approx(whole.best_temperature(), rel=1e-6)


@pytest.mark.parametrize(
    ("confidence", "correct", "error"),
    [
        ([0.9, 0.9, 0.65, 0.25], [True, False, True, False], (0.8 + 0.35 + 0.25) / 4),
        ([0.9, 0.92], [True, False], 0.41),  # one bin: half are right
        ([0.9, 0.95], [True, False], (0.1 + 0.95) / 2),  # two bins
        ([1.0, 1.0], [True, True], 0.0),
        ([1.0, 1.0], [False, False], 1.0),
        ([0.5, 0.5], [True, False], 0.0),
        ([0.0], [False], 0.0),
    ],
)
def test_calibration_errors_by_hand(confidence: list[float], correct: list[bool], error: float) -> None:
    assert calibration_error(torch.tensor(confidence), torch.tensor(correct)) == pytest.approx(error, abs=1e-6)
