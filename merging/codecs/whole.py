"""What is not packed: a tensor kept as it is, and a tensor that is the base's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from merging.codecs.contract import Numbers, Packed
from merging.codecs.fitting import fits, of_shape, only


@dataclass(frozen=True, eq=False)
class Whole:
    """The expert's tensor [*shape], of its own dtype; integers and flags too."""

    tensor: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor."""
        return tuple(self.tensor.shape)

    @property
    def payload(self) -> Mapping[str, Tensor]:
        """The tensor."""
        return {"tensor": self.tensor}

    @property
    def numbers(self) -> Numbers:
        """None."""
        return {}

    def expert(self, base: Tensor) -> Tensor:
        """The tensor itself: not to be written to."""
        return self.tensor

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Whole":
        """The same elsewhere."""
        return Whole(move(self.tensor))


@dataclass(frozen=True, eq=False)
class Same:
    """A tensor that fine-tuning left alone; nothing is kept."""

    shape: tuple[int, ...]

    @property
    def payload(self) -> Mapping[str, Tensor]:
        """None."""
        return {}

    @property
    def numbers(self) -> Numbers:
        """None."""
        return {}

    def expert(self, base: Tensor) -> Tensor:
        """The base's tensor itself, of its own dtype: not to be written to."""
        return of_shape(base, self.shape)

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Same":
        """The same: there is nothing to move."""
        return self


class _Whole:
    """Reads tensors kept as they are."""

    def unpack(self, shape: tuple[int, ...], payload: Mapping[str, Tensor], numbers: Numbers) -> Packed:
        only(payload, numbers, ("tensor",))
        return Whole(fits("tensor", payload["tensor"], shape, payload["tensor"].dtype))


class _Same:
    """Reads what stands for the base's tensors."""

    def unpack(self, shape: tuple[int, ...], payload: Mapping[str, Tensor], numbers: Numbers) -> Packed:
        only(payload, numbers, ())
        return Same(shape)


whole = _Whole()
same = _Same()
