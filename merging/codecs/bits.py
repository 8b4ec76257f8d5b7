"""Bits eight to a byte, and tensors as the bytes they are made of. Bit i of a stream is bit i % 8 of byte i // 8."""

import torch
from torch import Tensor
from torch.nn.functional import pad

# Eight bytes of 0 or 1 times this number have their bits, the first lowest, in the uppermost byte.
_GATHER = 0x0102040810204080


def packed_size(count: int) -> int:
    """Bytes that so many bits take."""
    return -(-count // 8)


def pack(flags: Tensor) -> Tensor:
    """uint8 [⌈n / 8⌉] of flags bool [n]; what the last byte has to spare is 0."""
    whole = pad(flags.view(torch.uint8), (0, -flags.numel() % 8)).contiguous()
    return ((whole.view(torch.int64) * _GATHER) >> 56).to(torch.uint8)


def unpack(packed: Tensor, count: int) -> Tensor:
    """bool [count], from uint8 [at least count / 8]."""
    # a table of eight flags a byte, read as one number: each byte costs one look-up
    table = (_values(packed)[:, None] >> torch.arange(8, device=packed.device)) & 1
    spread = table.to(torch.uint8).view(torch.int64).flatten()
    return spread.index_select(0, packed.to(torch.int32)).view(torch.bool)[:count]


def count_ones(packed: Tensor) -> int:
    """How many bits of uint8 [*] are 1."""
    ones = torch.zeros(256, dtype=torch.int64, device=packed.device)
    for place in range(8):
        ones += (_values(packed) >> place) & 1
    return int((torch.bincount(packed.flatten(), minlength=256) * ones).sum())


def to_bytes(tensor: Tensor) -> bytearray:
    """The tensor's elements in their order, as safetensors has them."""
    data = bytearray(tensor.numel() * tensor.element_size())
    if data:
        torch.frombuffer(data, dtype=tensor.dtype).view(tensor.shape).copy_(tensor)
    return data


def from_bytes(data: bytearray) -> Tensor:
    """uint8 [n], a view of the bytes."""
    return torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _values(like: Tensor) -> Tensor:
    """Every value of a byte, int64 [256], on a tensor's device."""
    return torch.arange(256, device=like.device)
