"""The passes that selections are made of, in torch: any device, and the same numbers as the compiled kernel's."""

import torch
from torch import Tensor

from merging.kernel.plain import bits, parts, selection
from merging.kernel.program import Cut, Keep

# Elements whose magnitudes are summed as one, by halves: fixed, so that the sum depends on nothing else.
SUM_BLOCK = 2048


def tally(base: Tensor, expert: Tensor, shift: int, table: Tensor, prefix: int | None = None) -> None:
    """Counts the bits of |τ| into a table, in place.

    Args:
        base, expert: flat [n].
        shift: how many lower bits are set apart.
        table: int64, on any device. Without a prefix it counts the upper bits (bits >> shift); with one the lower
            `shift` bits of the elements whose upper bits are the prefix.
    """
    for _, part in parts(base):
        magnitudes = bits(_delta(base[part], expert[part]))
        upper = magnitudes >> shift
        keys = upper if prefix is None else magnitudes[upper == prefix] & ((1 << shift) - 1)
        table += torch.bincount(keys, minlength=table.numel()).to(table.device)


def place(base: Tensor, expert: Tensor, pattern: int, nth: int) -> int:
    """The flat index of the nth (from 1) element whose |τ| has exactly these bits."""
    seen = 0
    for first, part in parts(base):
        found = (bits(_delta(base[part], expert[part])) == pattern).nonzero().flatten()
        if seen + found.numel() >= nth:
            return first + int(found[nth - seen - 1])
        seen += found.numel()
    raise ValueError(f"only {seen} of the {nth} elements are there")


def row_cuts(base: Tensor, expert: Tensor, count: int, width: int) -> Cut:
    """The cut above which lie `count` elements of each row, 0 < count < width; index width − 1: all the equal ones."""
    values, indices = [], []
    for _, part in parts(base, width):
        magnitudes = bits(_delta(base[part], expert[part])).view(-1, width)
        value = magnitudes.kthvalue(width - count + 1, dim=1, keepdim=True).values
        equal = (magnitudes == value).to(torch.int64)
        missing = count - (magnitudes > value).sum(dim=1, keepdim=True)
        last = ((equal.cumsum(dim=1) == missing) & (equal == 1)).to(torch.int32).argmax(dim=1)
        values.append(value.flatten())
        indices.append(last.where(equal.sum(dim=1) > missing.flatten(), width - 1))
    return Cut(torch.cat(values).view(torch.float32), torch.cat(indices))


def ranks(base: Tensor, expert: Tensor, width: int) -> Tensor:
    """uint16 [n], or int32 where a row is longer than 65536: the rank of |τ| in its row, equal ones by index."""
    result = torch.empty(base.numel(), dtype=rank_dtype(width), device=base.device)
    for _, part in parts(base, width):
        order = bits(_delta(base[part], expert[part])).view(-1, width).argsort(dim=1, stable=True)
        counted = torch.arange(width, device=base.device).expand_as(order)
        result[part] = torch.empty_like(order).scatter_(1, order, counted).flatten().to(result.dtype)
    return result


def rank_dtype(width: int) -> torch.dtype:
    """The narrowest dtype that holds the ranks of a row."""
    return torch.uint16 if width <= 1 << 16 else torch.int32


def block_sums(base: Tensor, expert: Tensor, keep: Keep) -> Tensor:
    """float64 [2, blocks]: Σ |τ| and Σ |m τ| of each `SUM_BLOCK` elements, added by halves."""
    sums = []
    for first, part in parts(base, SUM_BLOCK):
        delta = _delta(base[part], expert[part])
        mask = selection(keep, delta, first, base.numel())
        kept = delta if mask is None else delta * mask.to(torch.float32)
        both = torch.stack([delta, kept]).abs_().to(torch.float64)
        both = torch.nn.functional.pad(both, (0, -both.shape[1] % SUM_BLOCK)).view(2, -1, SUM_BLOCK)
        while (half := both.shape[2] // 2) > 0:
            both = both[:, :, :half] + both[:, :, half:]
        sums.append(both[:, :, 0])
    return torch.cat(sums, dim=1)


def _delta(base: Tensor, expert: Tensor) -> Tensor:
    return expert.to(torch.float32) - base.to(torch.float32)
