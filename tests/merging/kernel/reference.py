"""Selections and elections in plain torch, whole masks and all: what the kernel's must agree with."""

from collections.abc import Sequence

import torch
from torch import Tensor


def kept_count(share: float, size: int) -> int:
    """How many of `size` elements a share keeps: max(1, ⌊share·size⌋), so that no tensor is emptied."""
    return min(size, max(1, int(share * size)))


def largest_mask(values: Tensor, count: int) -> Tensor:
    """bool [*shape]: True at exactly the `count` largest values; of equal values the lowest indices win."""
    flat = values.flatten()
    if count <= 0:
        return torch.zeros_like(values, dtype=torch.bool)
    if count >= flat.numel():
        return torch.ones_like(values, dtype=torch.bool)
    threshold = flat.kthvalue(flat.numel() - count + 1).values
    mask = flat > threshold
    missing = count - int(mask.count_nonzero())
    mask[(flat == threshold).nonzero().flatten()[:missing]] = True  # indices ascend: the lowest win
    return mask.view_as(values)


def magnitude_mask(delta: Tensor, density: float) -> Tensor:
    """bool [*shape]: the share `density` of elements that are largest in magnitude (TIES' trim)."""
    return largest_mask(delta.abs(), kept_count(density, delta.numel()))


def band_mask(delta: Tensor, density: float, gamma: float) -> Tensor:
    """bool [*shape]: the share `density` right below the share `gamma` of largest magnitudes (breadcrumbs).

    gamma yields where the two shares exceed 1, so that the share kept is always `density`.
    """
    kept = kept_count(density, delta.numel())
    dropped = min(int(gamma * delta.numel()), delta.numel() - kept)
    magnitudes = delta.abs()
    band = largest_mask(magnitudes, dropped + kept)
    return band.logical_xor_(largest_mask(magnitudes, dropped))  # ties fall by index: the smaller mask is inside


def masked_(out: Tensor, delta: Tensor, mask: Tensor) -> Tensor:
    """out = mask ⊙ delta, all [*shape]. Seen as int8, since torch multiplies by a bool five times slower."""
    return out.copy_(mask.view(torch.int8)).mul_(delta)


def masked_sum(deltas: Tensor, masks: Tensor, weights: Sequence[float], buffer: Tensor | None = None) -> Tensor:
    """Σ_t w_t m_t τ_t: deltas [T, *shape], masks bool [T, *shape] -> [*shape]; `buffer` [*shape] is scratch."""
    total, buffer = torch.zeros_like(deltas[0]), torch.empty_like(deltas[0]) if buffer is None else buffer
    for delta, mask, weight in zip(deltas, masks, weights, strict=True):
        total.add_(masked_(buffer, delta, mask).mul_(weight))
    return total


def elect_(votes: Tensor) -> Tensor:
    """votes = the sign +1 or -1 of the summed votes [*shape], in place; a tied vote elects +1."""
    return torch.ge(votes, 0.0, out=votes).mul_(2.0).sub_(1.0)  # 1 or 0, then ±1


def agreeing_sums(deltas: Tensor, masks: Tensor, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Signed sum and weight of the experts that agree with the elected sign, element by element.

    s = sign(Σ_t w_t m_t τ_t); numerator Σ_t [sign(w_t m_t τ_t) = s] w_t m_t τ_t, denominator Σ_t [same] w_t.
    Zero — trimmed, unchanged or of weight 0 — neither votes nor agrees. Four buffers of [*shape] in all.

    Returns:
        numerator and denominator, both [*shape], from deltas [T, *shape] and masks bool [T, *shape].
    """
    vote = torch.empty_like(deltas[0])
    sign = elect_(masked_sum(deltas, masks, weights, vote))
    numerator, denominator = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta, mask, weight in zip(deltas, masks, weights, strict=True):
        masked_(vote, delta, mask).mul_(weight).mul_(sign)  # positive where the expert agrees
        numerator.add_(vote.clamp_(min=0.0))
        denominator.add_(torch.gt(vote, 0.0, out=vote), alpha=weight)
    return numerator.mul_(sign), denominator


def mean_(numerator: Tensor, denominator: Tensor, eps: float = 1e-30) -> Tensor:
    """numerator /= denominator in place; a denominator (≥ 0) below eps counts as 1: over nobody, 0 stays 0."""
    nobody = torch.lt(denominator, eps, out=torch.empty_like(denominator))
    return numerator.div_(denominator.add_(nobody))  # 1 + eps is 1
