"""What is asked of stored parts before a packed tensor is made of them: names, dtypes, sizes, whole numbers.

Everything wrong is a ValueError that says what; whoever read the file adds which file it was.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from merging.codecs.contract import Numbers


def only(payload: Mapping[str, Tensor], numbers: Numbers, parts: Sequence[str], named: Sequence[str] = ()) -> None:
    """The payload has these parts and the numbers these names, and neither has others."""
    for what, found, wanted in (("part", payload, parts), ("number", numbers, named)):
        if missing := [name for name in wanted if name not in found]:
            raise ValueError(f"misses the {what} {missing[0]}")
        if unknown := sorted(set(found) - set(wanted)):
            raise ValueError(f"has the {what} {unknown[0]}, which means nothing here")


def fits(name: str, part: Tensor, shape: Sequence[int], *dtypes: torch.dtype) -> Tensor:
    """The part, which has that shape and one of the dtypes."""
    if part.dtype not in dtypes:
        raise ValueError(f"{name} is of {part.dtype}, not {' or '.join(str(each) for each in dtypes)}")
    if part.shape != tuple(shape):
        raise ValueError(f"{name} has the shape {list(part.shape)}, not {list(shape)}")
    return part


def whole_number(numbers: Numbers, name: str, highest: int) -> int:
    """The number, which is an integer from 0 to `highest`."""
    value = numbers[name]
    if not isinstance(value, int) or not 0 <= value <= highest:
        raise ValueError(f"{name} is {value}, not a whole number up to {highest}")
    return value


def magnitude(numbers: Numbers, name: str) -> float:
    """The number, which is finite and not negative."""
    value = float(numbers[name])
    if not 0.0 <= value < math.inf:
        raise ValueError(f"{name} is {value}, not finite and at least 0")
    return value


def of_shape(base: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The base, which has the shape of what was packed.

    Raises:
        ValueError: it has another. An index beyond the end would fail for good on a device.
    """
    if base.shape != shape:
        raise ValueError(f"the base has the shape {list(base.shape)}, the packed tensor {list(shape)}")
    return base
