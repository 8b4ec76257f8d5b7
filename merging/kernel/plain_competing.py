"""Competitions of experts in torch: any device, any dtype, and on the CPU the same bits as the compiled kernel."""

from collections.abc import Sequence

import torch
from torch import Tensor

from merging.fingerprint import is_finite
from merging.kernel.competing import Contest
from merging.kernel.plain import parts
from merging.kernel.program import NOBODY


def compete(contest: Contest, out: Tensor, base: Tensor, experts: Sequence[Tensor], stored: torch.dtype) -> bool:
    """Executes a contest as `merging.kernel.run` says; all tensors flat [n]."""
    finite = True
    factors = contest.factors(*_counts(contest, base, experts)) if contest.rule == "alone" else ()
    for _, part in parts(out):
        start = base[part].to(torch.float32)
        deltas = [expert[part].to(torch.float32) - start for expert in experts]
        if contest.rule == "alone":
            update = _alone(contest, deltas, factors)
        elif contest.rule == "erased":
            update = _erased(contest, deltas, None if contest.mask is None else contest.mask.reshape(-1)[part])
        else:
            update = _scaled(contest, [delta * weight for delta, weight in zip(deltas, contest.weights, strict=True)])
        rounded = (start + update * contest.scale).to(stored)
        out[part].copy_(rounded)
        finite = is_finite(rounded) and finite
    return finite


def _scaled(contest: Contest, terms: list[Tensor]) -> Tensor:
    """u of the rules that look at v_t."""
    if contest.rule == "shared":
        total = _sum(terms)
        users = torch.zeros_like(total)
        for term in terms:
            users.add_(term.abs() > (total - term).abs().mul_(contest.bound))
        return total * (users >= contest.fewest)
    if contest.rule == "clamped":
        return _sum([term.clamp(-contest.bound, contest.bound) + term * 0.0 for term in terms])
    high, low = torch.zeros_like(terms[0]), torch.zeros_like(terms[0])
    for term in terms:  # torch's extremes do not say which zero they return
        high = torch.where(term > high, term, high)
        low = torch.where((term < low) | term.isnan(), term, low)
    return torch.where(high >= -low if contest.rule == "furthest" else _sum(terms) >= 0.0, high, low)


def _erased(contest: Contest, deltas: list[Tensor], mask: Tensor | None) -> Tensor:
    sign = torch.where(_sum(deltas) >= 0.0, 1.0, -1.0)
    numerator, denominator = torch.zeros_like(sign), torch.zeros_like(sign)
    for delta, weight in zip(deltas, contest.weights, strict=True):
        vote = delta * sign if mask is None else (delta * sign).mul_(mask)
        numerator.add_(torch.where(vote <= 0.0, 0.0, vote).mul_(weight))
        denominator.add_((vote > 0.0).to(torch.float32).mul_(weight))
    return _divided(numerator.mul_(sign), denominator)


def _alone(contest: Contest, deltas: list[Tensor], factors: Sequence[float]) -> Tensor:
    numerator, denominator, factor = (torch.zeros_like(deltas[0]) for _ in range(3))
    changed = _changed(contest, deltas)
    for delta, mask, weight, own in zip(deltas, changed, contest.weights, factors, strict=True):
        numerator.add_((delta * mask).mul_(weight))
        denominator.add_(mask.to(torch.float32).mul_(weight))
        factor.add_(mask.to(torch.float32).mul_(own))
    return _divided(numerator, denominator).mul_(torch.where(_times(changed) == 1, factor, 1.0))


def _changed(contest: Contest, deltas: Sequence[Tensor]) -> list[Tensor]:
    """c_t, bool: NaN counts as changed, an expert of weight 0 as unchanged."""
    pairs = zip(deltas, contest.weights, strict=True)
    return [(d.abs() <= contest.bound).logical_not_().logical_and_(torch.tensor(w != 0.0)) for d, w in pairs]


def _times(changed: Sequence[Tensor]) -> Tensor:
    """int32: how many experts changed each element."""
    return torch.stack(list(changed)).sum(0, dtype=torch.int32)


def _counts(contest: Contest, base: Tensor, experts: Sequence[Tensor]) -> tuple[list[int], list[int]]:
    """How many elements each expert changed, and how many it alone did."""
    counts, own = [0] * len(experts), [0] * len(experts)
    for _, part in parts(base):
        start = base[part].to(torch.float32)
        changed = _changed(contest, [expert[part].to(torch.float32) - start for expert in experts])
        alone = _times(changed) == 1
        for i, mask in enumerate(changed):
            counts[i] += int(mask.count_nonzero())
            own[i] += int(mask.logical_and(alone).count_nonzero())
    return counts, own


def _sum(terms: Sequence[Tensor]) -> Tensor:
    total = torch.zeros_like(terms[0])
    for term in terms:
        total.add_(term)
    return total


def _divided(numerator: Tensor, denominator: Tensor) -> Tensor:
    return numerator.div_(torch.where(denominator.abs() < NOBODY, 1.0, denominator))
