"""How sure a model's predictions are: the temperature at which they are as sure as they are right, and by how much not.

Logits are divided by a temperature T; the best one makes −log p of the right tokens smallest (Guo et al. 2017,
arXiv:1706.04599). What is kept of a prediction is its log-sum-exp on a grid of 1/T with two derivatives, a few hundred
bytes whatever the vocabulary: every temperature between is found from it without its logits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.lm.budget import chunks

WIDEST = 16.0
"""The temperature lies between 1/WIDEST and WIDEST: of predictions that are always right the best one would be 0."""
BINS = 15
_LEAST = -1e4  # below the top logit by so much nothing is left of a token at any temperature; infinity times 0 is NaN
_NODES = 33
_FIRST, _STEP = -math.log(WIDEST), 2.0 * math.log(WIDEST) / (_NODES - 1)  # of the grid, in log 1/T
_HALVINGS = 60  # of an interval of the grid: to the last digit
BYTES = 3 * 4 * _NODES + 5
"""What is kept of a prediction."""


@dataclass(frozen=True)
class Predictions:
    """Predictions of one token each.

    Attributes:
        gaps: how far the right token's logit is below the top one, float32 [n], at most 0.
        correct: whether the right token is predicted, bool [n].
        curves: log Σ exp(z / T) and its two derivatives by log 1/T on the grid, float32 [n, 3, grid], z below the top
            logit: the negative logarithm of the confidence.
    """

    gaps: Tensor
    correct: Tensor
    curves: Tensor

    def __len__(self) -> int:
        return len(self.gaps)

    def loss(self, temperature: float) -> float:
        """The mean of −log p of the right tokens, in nats."""
        unsure = _between(self.curves[:, 0], self.curves[:, 1], -math.log(temperature))
        return float((unsure - self.gaps.double() / temperature).mean())

    def confidence(self, temperature: float) -> Tensor:
        """The probability of each predicted token, float64 [n]."""
        return _between(self.curves[:, 0], self.curves[:, 1], -math.log(temperature)).neg().exp()

    def error(self, temperature: float) -> float:
        """The expected calibration error."""
        return calibration_error(self.confidence(temperature), self.correct)

    def best_temperature(self) -> float:
        """Where the loss is smallest, which is convex in 1/T: to 1e-4, within 1/WIDEST and WIDEST."""
        slopes, bends, gap = *self.curves[:, 1:].double().mean(0), float(self.gaps.double().mean())
        at_nodes = slopes - _grid().exp() * gap
        above = int((at_nodes > 0.0).long().argmax())
        if not bool(at_nodes[-1] > 0.0):
            return 1.0 / WIDEST
        if above == 0:
            return WIDEST
        low, high = _FIRST + _STEP * (above - 1), _FIRST + _STEP * above
        for _ in range(_HALVINGS):
            middle = (low + high) / 2.0
            rising = float(_between(slopes, bends, middle)) - math.exp(middle) * gap > 0.0
            low, high = (low, middle) if rising else (middle, high)
        return math.exp(-(low + high) / 2.0)


def predictions(logits: Tensor, right: Tensor) -> Predictions:
    """What is kept of predictions, on the CPU.

    Args:
        logits: [n, vocabulary].
        right: the tokens that come, int64 [n].
    """
    parts = chunks(logits.shape[0], logits.shape[1], logits.device)
    return join([_predictions(logits[part], right[part]) for part in parts])


def join(parts: Sequence[Predictions]) -> Predictions:
    """All of them, in their order; at least one part."""
    gaps, correct, curves = zip(*((part.gaps, part.correct, part.curves) for part in parts), strict=True)
    return Predictions(torch.cat(gaps), torch.cat(correct), torch.cat(curves))


def calibration_error(confidence: Tensor, correct: Tensor) -> float:
    """Σ_b |B_b| / n · |accuracy of B_b − mean confidence of B_b| over equal-width bins, open below (equation 3).

    Args:
        confidence: probability of each prediction, [n].
        correct: whether it was right, bool [n].
    """
    bins = (confidence.double() * BINS).ceil().long().clamp(1, BINS) - 1
    gaps = torch.zeros(BINS, dtype=torch.float64).index_add_(0, bins, correct.double() - confidence.double())
    return float(gaps.abs().sum()) / len(confidence)


def _predictions(logits: Tensor, right: Tensor) -> Predictions:
    top, predicted = logits.float().max(-1)
    below = (logits.float() - top[:, None]).clamp_min(_LEAST)
    found = []
    for inverse in _grid().exp().tolist():
        scaled = below * inverse
        whole = scaled.logsumexp(-1)
        shares = (scaled - whole[:, None]).exp()
        mean = (shares * scaled).sum(-1)
        found.append(torch.stack([whole, mean, mean + (shares * (scaled - mean[:, None]).square()).sum(-1)], -1))
    gaps = below.gather(1, right[:, None])[:, 0]
    return Predictions(gaps.cpu(), (predicted == right).cpu(), torch.stack(found, -1).cpu())


def _grid() -> Tensor:
    """Places of the nodes: log 1/T, float64 [grid]."""
    return _FIRST + _STEP * torch.arange(_NODES, dtype=torch.float64)


def _between(values: Tensor, slopes: Tensor, place: float) -> Tensor:
    """Cubic Hermite interpolation in the grid, float64 [...], of values and derivatives there, each [..., grid]."""
    at = (place - _FIRST) / _STEP
    first = min(max(int(at), 0), _NODES - 2)
    t = at - first
    left, right = values[..., first].double(), values[..., first + 1].double()
    rise, fall = _STEP * slopes[..., first].double(), _STEP * slopes[..., first + 1].double()
    ends = (1 + 2 * t) * (1 - t) ** 2 * left + (3 - 2 * t) * t**2 * right
    found: Tensor = ends + t * (1 - t) ** 2 * rise - (1 - t) * t**2 * fall
    return found
