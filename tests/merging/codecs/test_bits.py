"""Bits are where they are said to be, and come back."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from merging.codecs.bits import count_ones, from_bytes, pack, packed_size, to_bytes, unpack
from tests.merging.codecs.planted import QUICK


def test_the_first_bit_is_the_lowest_of_the_first_byte() -> None:
    flags = torch.tensor([1, 0, 0, 0, 0, 0, 0, 1, 0, 1], dtype=torch.bool)
    assert pack(flags).tolist() == [0b10000001, 0b00000010]


@QUICK
@given(st.lists(st.booleans(), max_size=70))
def test_bits_come_back(flags: list[bool]) -> None:
    packed = pack(torch.tensor(flags, dtype=torch.bool))
    assert packed.dtype == torch.uint8 and packed.shape == (packed_size(len(flags)),)
    assert unpack(packed, len(flags)).tolist() == flags
    assert count_ones(packed) == sum(flags)


def test_every_byte_unpacks_to_its_bits() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    expected = [bool(value >> place & 1) for value in range(256) for place in range(8)]
    assert unpack(every, 8 * 256).tolist() == expected
    assert torch.equal(pack(unpack(every, 8 * 256)), every)


def test_a_tensors_bytes_are_those_of_its_elements_in_order() -> None:
    assert to_bytes(torch.tensor([[1, 2], [3, 4]], dtype=torch.int16).mT) == bytes([1, 0, 3, 0, 2, 0, 4, 0])
    assert to_bytes(torch.empty(0, 3)) == b"" and from_bytes(bytearray()).shape == (0,)
    assert from_bytes(bytearray(b"ab")).tolist() == [97, 98]
