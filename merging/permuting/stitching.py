"""Stitches a layer of one model to a layer of another: the affine map between their activations, by least squares.

The initial stitch of stitchable networks (arXiv:2302.06586), pinv([X, 1]) Y, from sums that are gathered batch by
batch, so that no activations are kept. Trains nothing and cuts no models.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from merging.linalg import gram_factors, gram_solve


class Stitch(NamedTuple):
    """x → weight · x + bias, as a linear layer has them.

    Attributes:
        weight: float64 [d2, d1].
        bias: float64 [d2].
    """

    weight: Tensor
    bias: Tensor


class StitchSums:
    """What is needed to stitch two models, gathered from activations on the same tokens.

    Sums are kept around the means (Chan, Golub and LeVeque's update): coordinates with large means, as residual streams
    have, would otherwise drown the others.

    Args:
        width: d1, of the activations that are given.
        target: d2, of those that are wanted.
    """

    def __init__(self, width: int, target: int) -> None:
        self._count, self._width = 0, width
        self._mean = torch.zeros(width + target, dtype=torch.float64)
        self._moment = torch.zeros((width, width + target), dtype=torch.float64)  # centred XᵀX and XᵀY

    def add(self, x: Tensor, y: Tensor) -> None:
        """Counts one batch in.

        Args:
            x, y: activations of the two models on the same tokens in the same order, [..., d1] and [..., d2].

        Raises:
            ValueError: they are not of as many tokens.
        """
        flat = [each.detach().reshape(-1, each.shape[-1]).to("cpu", torch.float64) for each in (x, y)]
        if len(flat[0]) != len(flat[1]):
            raise ValueError(f"activations of {len(flat[0])} and of {len(flat[1])} tokens do not belong together")
        both, fresh = torch.cat(flat, 1), len(flat[0])
        if not fresh:
            return
        mean, total = both.mean(0), self._count + fresh
        centred, step = both - mean, mean - self._mean
        self._moment += centred[:, : self._width].mT @ centred
        self._moment += torch.outer(step[: self._width], step) * (self._count * fresh / total)
        self._mean += step * (fresh / total)
        self._count = total

    def solve(self, ridge: float = 0.0) -> Stitch:
        """The stitch that makes Σ ‖weight · x + bias − y‖² least.

        Args:
            ridge: pulls the weight, not the bias, toward 0, in units of the mean variance of x; without it, directions
                in which x does not vary have the weight 0.

        Raises:
            ValueError: nothing was added.
        """
        if not self._count:
            raise ValueError("no activations were added")
        gram, moment = self._moment[:, : self._width], self._moment[:, self._width :]
        weight = gram_solve(gram_factors((gram + gram.mT) / 2, moment.mT), ridge)
        return Stitch(weight, self._mean[self._width :] - weight @ self._mean[: self._width])
