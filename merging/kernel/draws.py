"""Random draws without a generator: number i of a key is a function of the key and i alone.

So a draw depends neither on the order of work nor on the device, pieces of it can be made alone, and it costs a few
integer operations. Number i is the upper 24 bits of

    x = i ⊕ k_0;   x = (x ⊕ x ≫ 17) · m_0;   x = (x ⊕ x ≫ 11 ⊕ k_1) · m_1;   x = (x ⊕ x ≫ 15) · m_2    mod 2^32

with shifts and multipliers those of triple32, the least biased of the 32-bit hashes that C. Wellons' hash-prospector
found. (Its last shift is left out: it changes lower bits only.) k_0 and k_1 are the halves of the key, finalised as in
splitmix64, so that keys alike differ in both: with one alone the draws of two keys would be one sequence in two orders.
The upper 32 bits of an index beyond 2^32 are mixed into k_1 by the function above with the key 0.
"""

from hashlib import blake2b

import torch
from torch import Tensor

_ROUNDS = ((17, 0xED5AD4BB), (11, 0xAC4C1B51), (15, 0x31848BAB))
_LOWER, _WORD = 0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF


def draw_key(seed: int, tensor: str, expert: str) -> int:
    """The 64-bit key of the draws for one expert's tensor: of names and contents, never of the order of work."""
    text = "\0".join((str(seed), tensor, expert)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def draw(key: int, first: int, count: int, device: torch.device | str = "cpu") -> Tensor:
    """float32 [count], uniform in [0, 1): the numbers first, first + 1, ... of the key, multiples of 2^-24.

    Element i is kept with probability p iff its number is below p: p = 1 keeps all, and what one key keeps with a
    small p it also keeps with a greater one.
    """
    end = first + count
    border = ((first >> 32) + 1) << 32
    if end > border:  # the upper half of the index changes on the way
        return torch.cat([draw(key, first, border - first, device), draw(key, border, end - border, device)])
    k0, k1 = _halves(key, first >> 32)
    x = torch.arange(first & _LOWER, (first & _LOWER) + count, device=device).to(torch.int32)  # wraps
    x.bitwise_xor_(_signed(k0))
    for (shift, multiplier), mixed in zip(_ROUNDS, (0, k1, 0), strict=True):
        shifted = (x >> shift).bitwise_and_((1 << 32 - shift) - 1)  # without the copies of the sign
        x.bitwise_xor_(shifted).bitwise_xor_(_signed(mixed)).mul_(_signed(multiplier))  # wraps
    return x.bitwise_right_shift_(8).bitwise_and_(0xFFFFFF).to(torch.float32).mul_(2.0**-24)


def finalised(key: int) -> int:
    """The key as it is used: k_0 above k_1."""
    x = key + 0x9E3779B97F4A7C15 & _WORD
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    x = (x ^ x >> 27) * 0x94D049BB133111EB & _WORD
    return x ^ x >> 31


def _halves(key: int, block: int) -> tuple[int, int]:
    """k_0 and k_1, 32 bits each, for the indices block · 2^32 and on."""
    both, mixed = finalised(key), block & _LOWER
    for shift, multiplier in _ROUNDS:
        mixed = (mixed ^ mixed >> shift) * multiplier & _LOWER  # 0 stays 0
    return both >> 32, both & _LOWER ^ mixed


def _signed(word: int) -> int:
    """The same 32 bits as a two's complement number."""
    return word - (1 << 32) if word >> 31 else word
