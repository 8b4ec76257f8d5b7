"""What a method makes of deltas, in one line: for tests against numbers worked by hand."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.testing import assert_close

from merging.catalog import CATALOG
from tests.merging.driver import merge

A = torch.tensor([4.0, 0.0, -2.0, -1.0])
B = torch.tensor([2.0, 6.0, 1.0, -0.5])


def update(name: str, deltas: Sequence[Tensor], weights: Sequence[float] | None = None, **values: Any) -> Tensor:
    """What is added to a base of zeros, whose experts are the deltas. `lambda_` is the parameter `lambda`."""
    parameters = {key.removesuffix("_"): value for key, value in values.items()}
    weights = [1.0] * len(deltas) if weights is None else weights
    return merge(CATALOG[name], torch.zeros_like(deltas[0]), deltas, weights, parameters)


def check(actual: Tensor, *expected: float) -> None:
    """The numbers, within rounding."""
    assert_close(actual, torch.tensor(expected), rtol=1e-6, atol=1e-6)


def noise(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, a function of the arguments."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
