"""Lossless: the expert's bytes XOR the base's, all first bytes together, all second bytes …, each such plane deflated.

What fine-tuning left of sign, exponent and upper mantissa becomes zeros (planes as in ZipNN, arXiv:2411.05239). The
strategy is run lengths and Huffman codes: of such planes they make less than a search for repetitions at level 9, in
the time of level 1. A device's payload is inflated on the CPU.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from merging.codecs.bits import from_bytes, to_bytes
from merging.codecs.contract import Codec, Numbers, Packed
from merging.codecs.fitting import fits, of_shape, only, whole_number
from merging.errors import InvalidModel
from merging.methods.contract import Role

_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # a dtype is stored as its place here
_MEMORY = 9  # the most that zlib takes: 256 KiB


@dataclass(frozen=True, eq=False)
class Xored:
    """The expert's bits, given the base's.

    Attributes:
        shape: of the tensor.
        dtype: the expert's own.
        planes: uint8 [*], one for each byte of an element; as long as the tensor has elements: as it is, else deflated.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    planes: tuple[Tensor, ...]

    @property
    def payload(self) -> Mapping[str, Tensor]:
        """The planes, lowest byte first."""
        return {_name(place): plane for place, plane in enumerate(self.planes)}

    @property
    def numbers(self) -> Numbers:
        """The dtype."""
        return {"dtype": _DTYPES.index(self.dtype)}

    def expert(self, base: Tensor) -> Tensor:
        """The expert's tensor, bit for bit.

        Raises:
            InvalidModel: a plane cannot be inflated: the file was damaged.
        """
        known = _bytes(of_shape(base, self.shape).cpu().to(self.dtype)).clone()
        for place, plane in enumerate(self.planes):
            known[:, place].bitwise_xor_(_inflated(plane.cpu(), len(known), _name(place)))
        return known.view(self.dtype).view(self.shape).to(base.device)

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Xored":
        """The same with its payload elsewhere."""
        return Xored(self.shape, self.dtype, tuple(move(plane) for plane in self.planes))


class _Xor:
    def pack(self, base: Tensor, expert: Tensor, role: Role, settings: Mapping[str, float]) -> Packed:
        changed = _bytes(expert.cpu()) ^ _bytes(base.cpu().to(expert.dtype))
        return Xored(tuple(expert.shape), expert.dtype, tuple(_deflated(plane) for plane in changed.unbind(1)))

    def unpack(self, shape: tuple[int, ...], payload: Mapping[str, Tensor], numbers: Numbers) -> Packed:
        if "dtype" not in numbers:
            raise ValueError("misses the number dtype")
        dtype = _DTYPES[whole_number(numbers, "dtype", len(_DTYPES) - 1)]
        names = [_name(place) for place in range(dtype.itemsize)]
        only(payload, numbers, names, ("dtype",))
        size = prod(shape)
        for name in names:
            fits(name, payload[name], (min(size, payload[name].numel()),), torch.uint8)
        return Xored(shape, dtype, tuple(payload[name] for name in names))


def _name(place: int) -> str:
    return f"plane{place}"


def _bytes(tensor: Tensor) -> Tensor:
    """A tensor's bytes, uint8 [n, bytes of an element]; may be a view."""
    return tensor.contiguous().flatten().view(torch.uint8).view(-1, tensor.element_size())


def _deflated(plane: Tensor) -> Tensor:
    """uint8 [n] deflated, or as it is where that would be no shorter."""
    how = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS, _MEMORY, zlib.Z_RLE)
    packed = bytearray(how.compress(to_bytes(plane)) + how.flush())
    return from_bytes(packed) if len(packed) < plane.numel() else plane.contiguous()


def _inflated(plane: Tensor, size: int, name: str) -> Tensor:
    """uint8 [size]: what `_deflated` was given."""
    if plane.numel() == size:
        return plane
    inflate = zlib.decompressobj()
    try:
        found = bytearray(inflate.decompress(to_bytes(plane), size + 1))  # never more, whatever the file says
    except zlib.error as error:
        raise _damaged(name, str(error)) from error
    if len(found) != size or not inflate.eof:
        raise _damaged(name, f"{size} bytes were packed")
    return from_bytes(found)


def _damaged(name: str, how: str) -> InvalidModel:
    return InvalidModel("payload", name, f"cannot be inflated ({how})", "copy or download the compressed expert again")


xor: Codec = _Xor()
