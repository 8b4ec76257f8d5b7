"""What the trials that are left may still gain, from what the trials so far were told.

Two ways to see it, and the larger counts, since either misses what the other sees:

- *draws*: the trials to come are draws like the recent ones, of a normal distribution without the noise of few
  documents; how far the best of so many is expected above the best so far. It sees luck to come, and no progress. Its
  spread is the largest that the recent values do not speak against (one standard error up), since noise hides a lot.
- *records*: the best so far gained something over the later half of the trials. Records of equal draws, and of a
  search that converges, come evenly in the logarithm of the trials or more slowly; so does what is left. It sees
  progress, and nothing where the last half brought none.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

LEAST_TRIALS = 20  # of the strategy's own, before anything is said
LOOKS = 5  # in a row that must find too little: one alone may be luck
_CELLS = 200  # of the integral; its error is far below any noise
_REACH = 8.0  # standard deviations beyond which nothing is drawn


@dataclass(frozen=True)
class Attempt:
    """What a trial of the strategy's own was told at.

    Attributes:
        value: None where it gave none, or may not win.
        noise: standard error of the value, as a guess at the value over all search documents.
        best: the best complete trial's value after it.
    """

    value: float | None
    noise: float
    best: float


def surely_gains_less(attempts: Sequence[Attempt], start: float, left: int, least: float) -> float | None:
    """What is left to gain, if that is less than `least` now and was after each of the last few trials; else None.

    Args: as of `expected_gain`.
    """
    if len(attempts) < LEAST_TRIALS + LOOKS - 1 or left < 1:
        return None
    found = [expected_gain(attempts[: len(attempts) - back], start, left + back) for back in range(LOOKS)]
    return found[0] if all(gain < least for gain in found) else None


def expected_gain(attempts: Sequence[Attempt], start: float, left: int) -> float:
    """How much better the best is expected to become over so many trials more.

    Args:
        attempts: in the order they were told; at least two.
        start: the best of the starts.
    """
    return max(by_draws(attempts, left), by_records(attempts, start, left))


def by_draws(attempts: Sequence[Attempt], left: int) -> float:
    """The gain if the trials to come are like the last third of those so far, 20 at least."""
    recent = attempts[-max(LEAST_TRIALS, len(attempts) // 3) :]
    known = [attempt for attempt in recent if attempt.value is not None]
    draws = left * len(known) / len(recent)
    if len(known) < 2 or draws <= 0:
        return 0.0
    values = [attempt.value or 0.0 for attempt in known]
    mean = math.fsum(values) / len(values)
    spread = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    noise = min(spread, math.fsum(attempt.noise**2 for attempt in known) / len(known))
    true = spread * (1.0 + math.sqrt(2.0 / (len(values) - 1))) - noise
    return beyond(attempts[-1].best - mean, math.sqrt(true), draws)


def by_records(attempts: Sequence[Attempt], start: float, left: int) -> float:
    """The gain if the best goes on growing with the logarithm of the trials, as it did over their later half."""
    tried = len(attempts)
    half = attempts[tried // 2 - 1].best if tried > 1 else start
    gained = max(0.0, attempts[-1].best - half)
    return gained * math.log1p(left / tried) / math.log(2.0)


def beyond(ahead: float, spread: float, draws: float) -> float:
    """Expectation of how far the best of so many normal draws lies beyond a mark, 0 where it does not.

    Args:
        ahead: the mark, above the mean.
        spread: their standard deviation.
    """
    if spread <= 0.0:
        return max(0.0, -ahead)
    low, high = ahead / spread, max(_REACH, ahead / spread + _REACH)
    width = (high - low) / _CELLS
    points = (low + (cell + 0.5) * width for cell in range(_CELLS))
    return spread * width * math.fsum(-math.expm1(draws * _log_below(point)) for point in points)


def _log_below(point: float) -> float:
    """The logarithm of the standard normal distribution function."""
    tail = 0.5 * math.erfc(abs(point) / math.sqrt(2.0))
    return math.log1p(-tail) if point >= 0.0 else math.log(max(tail, 1e-300))
