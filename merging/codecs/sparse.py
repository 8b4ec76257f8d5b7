"""The largest elements as they are: index and value (as in Composable SFT, arXiv:2110.07560, with coded indices)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor

from merging.codecs.contract import Codec, Numbers, Packed
from merging.codecs.fitting import fits, of_shape, only, whole_number
from merging.codecs.golomb import Gaps, check, decode, encode
from merging.codecs.largest import largest
from merging.codecs.whole import Whole
from merging.methods.contract import Role


@dataclass(frozen=True, eq=False)
class Sparse:
    """τ is 0 but for some elements.

    Attributes:
        shape: of the tensor.
        gaps: the flat indices of these.
        values: bfloat16 or float32 [count].
    """

    shape: tuple[int, ...]
    gaps: Gaps
    values: Tensor

    @property
    def payload(self) -> Mapping[str, Tensor]:
        """Indices and values."""
        return {"high": self.gaps.high, "low": self.gaps.low, "values": self.values}

    @property
    def numbers(self) -> Numbers:
        """How many there are."""
        return {"count": self.gaps.count}

    def expert(self, base: Tensor) -> Tensor:
        """θ_0 + τ, float32."""
        return added(base, self.shape, self.gaps, self.values.float())

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Sparse":
        """The same with its payload elsewhere."""
        return Sparse(self.shape, self.gaps.moved(move), move(self.values))


class _Sparse:
    def pack(self, base: Tensor, expert: Tensor, role: Role, settings: Mapping[str, float]) -> Packed:
        if role == "vector":
            return Whole(expert)
        kept = largest(base, expert, settings["density"])
        values = kept.values if settings["bits"] == 32 else kept.values.to(torch.bfloat16)
        return Sparse(tuple(expert.shape), encode(kept.indices, expert.numel()), values)

    def unpack(self, shape: tuple[int, ...], payload: Mapping[str, Tensor], numbers: Numbers) -> Packed:
        only(payload, numbers, ("high", "low", "values"), ("count",))
        gaps = stored_gaps(shape, payload, numbers)
        return Sparse(shape, gaps, fits("values", payload["values"], (gaps.count,), torch.bfloat16, torch.float32))


def added(base: Tensor, shape: tuple[int, ...], gaps: Gaps, values: Tensor) -> Tensor:
    """θ_0 with values float32 [count] added at the indices, float32 [*shape]; a copy."""
    result = of_shape(base, shape).to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    result.view(-1).index_add_(0, decode(gaps), values)
    return result


def stored_gaps(shape: tuple[int, ...], payload: Mapping[str, Tensor], numbers: Numbers) -> Gaps:
    """The indices of a stored tensor, checked."""
    size = prod(shape)
    return check(Gaps(payload["high"], payload["low"], whole_number(numbers, "count", size)), size)


sparse: Codec = _Sparse()
