"""What a worker may be told, and which GPU it gets to see."""

import subprocess
import sys

import pytest

from merging.errors import InvalidInput
from workers import devices
from workers.devices import visible
from workers.settings import WorkerServiceSettings


@pytest.mark.parametrize(
    ("key", "value"),
    [("pools", ()), ("pools", ("GPU",)), ("pools", ("a b",)), ("device", "nonsense"), ("device", "cuda:x")],
)
def test_what_is_wrong_is_named(key: str, value: object) -> None:
    with pytest.raises(InvalidInput, match=key):
        WorkerServiceSettings("sqlite://", "redis://", **{key: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("seen", "device", "shown"),
    [(None, "cuda", "0"), (None, "cuda:1", "1"), ("5,7", "cuda:1", "7"), ("GPU-a,GPU-b", "cuda:0", "GPU-a")],
)
def test_a_worker_sees_its_gpu_alone(
    monkeypatch: pytest.MonkeyPatch, seen: str | None, device: str, shown: str
) -> None:
    monkeypatch.setattr(devices, "count_gpus", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    assert visible(device) == shown


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "count_gpus", lambda: 1)
    with pytest.raises(InvalidInput, match=r"device: 'cuda:1' is not there; GPUs here: cuda:0; name"):
        visible("cuda:1")


def test_what_the_controller_and_a_worker_parent_load_is_without_torch() -> None:
    modules = ("dispatcher", "task", "service", "supervisor", "celery_worker", "request", "rehearsal", "evaluator")
    code = f"import sys, {', '.join(f'workers.{m}' for m in modules)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
