"""Stitches a layer of one model to a layer of another: the map between their activations, by least squares.

Either the affine map, the initial stitch of stitchable networks (arXiv:2302.06586), pinv([X, 1]) Y; or a rotation with
one scale for all coordinates, which a model's weights can take in (`rotation.py`). Both from sums of float64 that are
gathered batch by batch, so that no activations are kept. Trains nothing and cuts no models.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from merging.linalg import FLOOR, gram_factors, gram_solve


class Stitch(NamedTuple):
    """x → weight · x + bias, as a linear layer has them.

    Attributes:
        weight: float64 [d2, d1].
        bias: float64 [d2].
    """

    weight: Tensor
    bias: Tensor


class Turn(NamedTuple):
    """x → scale · rotation · x.

    Attributes:
        rotation: float64 [d, d], orthogonal; it may reflect.
        scale: above 0.
    """

    rotation: Tensor
    scale: float

    @property
    def stitch(self) -> Stitch:
        """The same map as a linear layer."""
        return Stitch(self.scale * self.rotation, torch.zeros(len(self.rotation), dtype=torch.float64))


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
        self._spread = 0.0  # Σ ‖y − ȳ‖²

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
        share = self._count * fresh / total
        self._moment += torch.outer(step[: self._width], step) * share
        self._spread += float(centred[:, self._width :].square().sum() + step[self._width :].square().sum() * share)
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
        gram, moment, x, y = self._parts()
        weight = gram_solve(gram_factors((gram + gram.mT) / 2, moment.mT), ridge)
        return Stitch(weight, y - weight @ x)

    def explained(self, stitch: Stitch) -> float:
        """R² of a map on what was added: 1 − Σ ‖weight · x + bias − y‖² / Σ ‖y − ȳ‖²; at most 1.

        Raises:
            ValueError: nothing was added, or y never changes.
        """
        gram, moment, x, y = self._parts()
        if not self._spread:
            raise ValueError("activations that never change cannot be explained")
        weight, bias = stitch
        left = (weight @ gram * weight).sum() - 2 * (weight * moment.mT).sum() + self._spread
        return 1 - float(left + self._count * (weight @ x + bias - y).square().sum()) / self._spread

    def _parts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """XᵀX and XᵀY around the means, and the means of x and y."""
        if not self._count:
            raise ValueError("no activations were added")
        moment, mean, width = self._moment, self._mean, self._width
        return moment[:, :width], moment[:, width:], mean[:width], mean[width:]


class TurnSums:
    """What is needed to turn one model's residual stream into another's, gathered on the same tokens.

    Of every token its direction alone counts: norms read nothing else of a stream, and tokens with a hundred times
    the others' length, as the first one often has, would decide the rotation alone.

    Args:
        width: d, of both.
    """

    def __init__(self, width: int) -> None:
        self._cross = torch.zeros((width, width), dtype=torch.float64)  # Σ y/|y| (x/|x|)ᵀ
        self._longer, self._count = 0.0, 0  # Σ log |y|/|x|

    def add(self, x: Tensor, y: Tensor) -> None:
        """Counts one batch in; a token of which either model has nothing but zeros is left out.

        Args:
            x, y: activations of the two models on the same tokens in the same order, [..., d].

        Raises:
            ValueError: they are not of as many tokens.
        """
        flat = [each.detach().reshape(-1, each.shape[-1]).to("cpu", torch.float64) for each in (x, y)]
        if len(flat[0]) != len(flat[1]):
            raise ValueError(f"activations of {len(flat[0])} and of {len(flat[1])} tokens do not belong together")
        lengths = [each.norm(dim=1) for each in flat]
        some = (lengths[0] > 0) & (lengths[1] > 0)
        ours, theirs = ((each / length[:, None])[some] for each, length in zip(flat, lengths, strict=True))
        self._cross += theirs.mT @ ours
        self._longer += float((lengths[1][some] / lengths[0][some]).log().sum())
        self._count += len(ours)

    def solve(self) -> Turn:
        """The rotation that makes Σ ‖rotation · x/|x| − y/|y|‖² least (Schönemann, 1966), the mean of |y|/|x| as scale.

        The mean is the geometric one. Directions that x and y do not span are turned as little as can be: equal
        models get the identity.

        Raises:
            ValueError: nothing was added that is not 0.
        """
        if not self._count:
            raise ValueError("no activations were added that are not 0")
        left, values, right = torch.linalg.svd(self._cross)
        kept = int((values > FLOOR * values[0]).count_nonzero())
        free = left[:, kept:].mT @ right[kept:].mT  # from the directions x leaves out to those y leaves out
        ours, _, theirs = torch.linalg.svd(free)
        rotation = left[:, :kept] @ right[:kept] + left[:, kept:] @ ours @ theirs @ right[kept:]
        return Turn(rotation, math.exp(self._longer / self._count))

    def cosine(self, rotation: Tensor) -> float:
        """The mean cosine of rotation · x with y over what was added; the identity tells how alike they are unturned.

        Args:
            rotation: [d, d], orthogonal.

        Raises:
            ValueError: nothing was added that is not 0.
        """
        if not self._count:
            raise ValueError("no activations were added that are not 0")
        return float((rotation * self._cross).sum()) / self._count
