"""The fused passes in torch: any device, any dtype, and on the CPU the same bits as the compiled kernel.

Work goes chunk by chunk, so that intermediate tensors stay in the cache and the memory stays small.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from merging.fingerprint import is_finite
from merging.kernel.draws import draw
from merging.kernel.program import NOBODY, Chance, Cut, Keep, Program

# Elements of a chunk: the calls' overhead vanishes, and on a CPU the buffers stay in the cache.
_CHUNK, _DEVICE_CHUNK = 1 << 17, 1 << 25
# Magnitudes are compared by their bits: the order is the same, and NaN has a place in it.
_MAGNITUDE, _NAN = 0x7FFFFFFF, 0x7FC00000


def weighted_sum(out: Tensor, models: Sequence[Tensor], coefficients: Tensor, stored: torch.dtype) -> bool:
    """out = Σ c_i X_i as `merging.kernel.weighted_sum` says.

    Args:
        out, models: [rows, width].
        coefficients: float64 [models, rows] or [models, 1], on the CPU.
    """
    wide = torch.float64 if stored == torch.float64 else torch.float32
    factors = coefficients.to(out.device, wide)
    finite = True
    for part in _row_parts(out):
        factor = factors if factors.shape[1] == 1 else factors[:, part[0]]
        products = (model[part].to(wide) * c[:, None] for model, c in zip(models, factor, strict=True))
        total = next(products)
        for product in products:
            total.add_(product)
        finite = _store(out[part], total, stored) and finite
    return finite


def run(program: Program, out: Tensor, base: Tensor, experts: Sequence[Tensor], stored: torch.dtype) -> bool:
    """Executes a program as `merging.kernel.run` says; all tensors flat [n]."""
    finite = True
    for first, part in parts(out):
        start = base[part].to(torch.float32)
        deltas = [expert[part].to(torch.float32) - start for expert in experts]
        terms = [_term(keep, d, first, out.numel()) for keep, d in zip(program.keeps, deltas, strict=True)]
        update = _joined(program, terms, start)
        if program.divisor != 1.0:
            update = update / _number(program.divisor, update)
        finite = _store(out[part], start + update.mul_(program.scale), stored) and finite
    return finite


def _row_parts(out: Tensor) -> Iterator[tuple[slice, slice]]:
    """The chunks of [rows, width]: pieces of the one row, or several whole rows."""
    if out.shape[0] == 1:
        yield from ((slice(None), part) for _, part in parts(out[0]))
    else:
        width = max(out.shape[1], 1)
        yield from ((slice(p.start // width, p.stop // width), slice(None)) for _, p in parts(out.view(-1), width))


def parts(flat: Tensor, multiple: int = 1) -> Iterator[tuple[int, slice]]:
    """The chunks of a flat tensor, each a multiple of `multiple` elements long but the last: first index and slice."""
    step = _CHUNK if flat.device.type == "cpu" else _DEVICE_CHUNK
    step = max(step // multiple, 1) * multiple
    for first in range(0, flat.numel(), step):
        yield first, slice(first, first + step)


def bits(delta: Tensor) -> Tensor:
    """int32: the bits of |τ|, in the order of the magnitudes with NaN (all of them one) above infinity."""
    return (delta.view(torch.int32) & _MAGNITUDE).clamp_(max=_NAN)


def selection(keep: Keep, delta: Tensor, first: int, size: int) -> Tensor | None:
    """bool: which elements of a chunk of a delta are kept; None: all.

    Args:
        delta: float32, the chunk.
        first: the chunk's flat index in the tensor.
        size: elements of the tensor.
    """
    mask = None
    if keep.above is not None:
        mask = _upper_side(keep.above, delta, first, size)
    if keep.below is not None:
        outside = _upper_side(keep.below, delta, first, size).logical_not_()
        mask = outside if mask is None else mask.logical_and_(outside)
    if keep.chance is not None:
        drawn = draw(keep.chance.key, first, delta.numel(), delta.device) < _probability(keep.chance, delta, first)
        mask = drawn if mask is None else mask.logical_and_(drawn)
    return mask


def _term(keep: Keep, delta: Tensor, first: int, size: int) -> tuple[Tensor, Tensor | None]:
    """v_t and the mask (float32, None: all kept) of a chunk; overwrites `delta`."""
    kept = selection(keep, delta, first, size)
    mask = None if kept is None else kept.to(torch.float32)
    chance = keep.chance
    delta.mul_(keep.multiplier)
    if chance is not None and chance.rescale and not chance.even:
        delta.div_(_probability(chance, delta, first))
    return delta.mul_(keep.weight if mask is None else mask * keep.weight), mask


def _joined(program: Program, terms: list[tuple[Tensor, Tensor | None]], like: Tensor) -> Tensor:
    """u of a chunk, before the divisor."""
    weights = [keep.weight for keep in program.keeps]
    total = torch.zeros_like(like)
    for term, _ in terms:
        total.add_(term)
    if program.join == "sum":
        return total
    denominator = torch.zeros_like(like)
    if program.join == "mean":
        for (_, mask), weight in zip(terms, weights, strict=True):
            denominator.add_(weight if mask is None else mask * weight)
        return _divided(total, denominator)
    sign = torch.where(total >= 0.0, 1.0, -1.0)
    numerator = total - total  # 0, or NaN if the sum is not finite
    for (term, _), weight in zip(terms, weights, strict=True):
        term.mul_(sign)  # positive where the expert agrees; a zero does not
        denominator.add_((term > 0.0).to(torch.float32).mul_(weight))
        numerator.add_(torch.where(term > 0.0, term, 0.0))
    numerator.mul_(sign)
    return numerator if program.join == "elected_sum" else _divided(numerator, denominator)


def _divided(numerator: Tensor, denominator: Tensor) -> Tensor:
    return numerator.div_(torch.where(denominator.abs() < NOBODY, 1.0, denominator))


def _upper_side(cut: Cut, delta: Tensor, first: int, size: int) -> Tensor:
    magnitudes, rows = bits(delta), cut.value.numel()
    place = torch.arange(first, first + delta.numel(), device=delta.device)
    value, index = cut.value.to(delta.device).view(torch.int32), cut.index.to(delta.device)
    if rows > 1:
        row = place.div(size // rows, rounding_mode="floor")
        place, value, index = place - row * (size // rows), value[row], index[row]
    return (magnitudes > value).logical_or_((magnitudes == value).logical_and_(place <= index))


def _probability(chance: Chance, delta: Tensor, first: int) -> Tensor:
    """float32, [] or [n]: p of the chunk's elements."""
    lowest = _number(chance.first, delta)
    if chance.ranks is None or chance.even:
        return lowest
    return chance.ranks[first : first + delta.numel()].to(delta.device, torch.float32).mul_(chance.step).add_(lowest)


def _number(value: float, like: Tensor) -> Tensor:
    """A number as a tensor: divided by a plain number, some devices multiply by its reciprocal instead."""
    return torch.tensor(value, dtype=torch.float32, device=like.device)


def _store(target: Tensor, values: Tensor, stored: torch.dtype) -> bool:
    rounded = values.to(stored)
    target.copy_(rounded)
    return is_finite(rounded)
