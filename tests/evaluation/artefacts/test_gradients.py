"""Gradients by checkpoint name: whatever part of a parameter a tensor is, and however memory is laid out."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from evaluation.artefacts.gradients import owners, tracked


class Odd(nn.Module):
    """Parameters whose gradients lie otherwise than they do, a fused one, and a buffer."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def made(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator), requires_grad=False)

        self.upper, self.lower, self.fused = made(2, 3), made(4, 3), made(2, 4, 3)
        self.turned = nn.Parameter(made(3, 6).data.mT, requires_grad=False)
        self.unused = made(2)
        self.register_buffer("table", torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        # the gradients of joined tensors are parts of one
        joined = x @ torch.cat([self.upper, self.lower]).mT + x @ self.turned.mT
        return (joined.tanh().sum() + (self.fused @ x.mT).tanh().sum()) * self.get_buffer("table").sum()


def views(model: Odd) -> dict[str, Tensor]:
    """Its tensors as a checkpoint might name them, the fused one in four."""
    whole = {name: tensor for name, tensor in model.state_dict(keep_vars=True).items() if name != "fused"}
    parts = {f"fused.{i}.{j}": model.fused[i].chunk(2)[j] for i in range(2) for j in range(2)}
    return whole | parts


def test_each_tensor_gets_its_own_share_of_a_gradient() -> None:
    model, x = Odd(), torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    used = {name: each for name, each in model.named_parameters() if name != "unused"}
    wanted = dict(zip(used, torch.autograd.grad(model(x), list(used.values())), strict=True))
    fused = wanted.pop("fused")
    wanted |= {f"fused.{i}.{j}": fused[i].chunk(2)[j] for i in range(2) for j in range(2)}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    with tracked(model, views(model)) as gradients:
        for _ in range(2):  # what was given is forgotten
            model(x).backward()
            found = {name: gradient.clone() for name, gradient in gradients()}
            assert found.keys() == wanted.keys()
            assert all(torch.equal(found[name], value) for name, value in wanted.items())
    assert all(not each.requires_grad and each.grad is None for each in model.parameters())


def test_only_what_is_asked_for_is_followed() -> None:
    model = Odd()
    with tracked(model, {"fused.1.0": model.fused[1].chunk(2)[0]}) as gradients:
        followed = [name for name, each in model.named_parameters() if each.requires_grad]
        model(torch.ones(2, 3)).backward()
        assert followed == ["fused"] and [name for name, _ in gradients()] == ["fused.1.0"]
    with pytest.raises(InterruptedError), tracked(model, views(model)):
        model(torch.ones(2, 3)).backward()
        raise InterruptedError
    assert all(not each.requires_grad and each.grad is None for each in model.parameters())


def test_parameters_own_their_views_and_nobody_owns_a_buffer() -> None:
    model: Any = Odd()
    found = owners(model, views(model))
    assert found.pop("table") is None
    assert all(owner is getattr(model, name.partition(".")[0]) for name, owner in found.items())
