"""What a packed delta looks like to whoever opens, keeps or writes one.

A packed tensor knows how to make the expert's tensor from the base's, and nothing else: it is small, it is a value,
and it holds tensors and numbers only, so it can be stored in safetensors and moved to a device.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from torch import Tensor

from merging.methods.contract import Role

Numbers = Mapping[str, int | float]


class Packed(Protocol):
    """One tensor of an expert, given the base's."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the expert's tensor."""
        ...

    @property
    def payload(self) -> Mapping[str, Tensor]:
        """The tensors that it is made of, by name: what is stored, moved and counted."""
        ...

    @property
    def numbers(self) -> Numbers:
        """The rest: a few scalars, finite."""
        ...

    def expert(self, base: Tensor) -> Tensor:
        """The expert's tensor [*shape], on the device that `base` and the payload are on.

        float32, so that nothing is rounded before the merge; what is lossless (`xor`, `whole`, `same`) gives the dtype
        that was packed. It may be the base or a part of the payload itself: not to be written to.

        Raises:
            ValueError: the base has another shape.
            InvalidModel: the payload was damaged in a way that only its decoding shows.
        """
        ...

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Packed":
        """The same with its payload elsewhere (`move` gives a tensor's copy on a device, or pinned)."""
        ...


class Codec(Protocol):
    """Packs one tensor. Pure; equal inputs give equal bits."""

    def pack(self, base: Tensor, expert: Tensor, role: Role, settings: Mapping[str, float]) -> Packed:
        """The expert's tensor in this codec's form.

        Args:
            base, expert: [*shape], floating point, finite.
            role: what kind of tensor it is (`merging.roles`).
            settings: every setting that the codec declares.
        """
        ...

    def unpack(self, shape: tuple[int, ...], payload: Mapping[str, Tensor], numbers: Numbers) -> Packed:
        """What was packed, from what was stored.

        Raises:
            ValueError: payload and numbers do not fit the shape or each other; says how.
        """
        ...
