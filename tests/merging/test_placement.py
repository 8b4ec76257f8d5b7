"""Where models wait between builds: what fits on a device, decided without one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

import merging.placement
from merging.placement import stack_source
from tests.merging.factories import open_models

DEVICE = torch.device("meta")  # not the CPU, and everywhere


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was done with tensors on their way: `there` or `pinned`."""
    found: list[str] = []

    def noting(where: str) -> Callable[[Tensor], Tensor]:
        def note(tensor: Tensor) -> Tensor:
            found.append(where)
            return tensor

        return note

    monkeypatch.setattr(merging.placement, "_mover", lambda device: noting("there"))
    monkeypatch.setattr(Tensor, "pin_memory", noting("pinned"))
    return found


@pytest.mark.parametrize(("free", "limit", "how"), [(1.0, None, "there"), (0.9, None, "pinned"), (1.0, 0.9, "pinned")])
def test_models_wait_on_the_device_if_both_limits_allow_it(
    tmp_path: Path, moves: list[str], monkeypatch: pytest.MonkeyPatch, free: float, limit: float | None, how: str
) -> None:
    models = open_models(tmp_path)
    monkeypatch.setattr(merging.placement, "_half_of_free", lambda devices: int(free * models.kept_bytes))
    devices = dict.fromkeys(models.base.names, DEVICE)
    stack_source(models, devices, None if limit is None else int(limit * models.kept_bytes))
    assert set(moves) == {how}


def test_a_limit_above_what_is_free_is_no_leave_to_run_out_of_memory(
    tmp_path: Path, moves: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    models = open_models(tmp_path)
    monkeypatch.setattr(merging.placement, "_half_of_free", lambda devices: models.kept_bytes - 1)
    stack_source(models, dict.fromkeys(models.base.names, DEVICE), 10 * models.kept_bytes)
    assert set(moves) == {"pinned"}


def test_streamed_models_wait_nowhere(tmp_path: Path, moves: list[str]) -> None:
    models = open_models(tmp_path)
    stack = stack_source(models, dict.fromkeys(models.base.names, DEVICE), streamed=True)
    assert not moves
    name = models.base.names[0]
    assert torch.equal(stack(name).base, models.base.tensor(name)) and moves == ["there"] * 4
