"""Which devices there are, found out without loading torch: a process that counts GPUs would hold on to one."""

import os
import subprocess
import sys

from merging.errors import InvalidInput

_COUNT = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"


def count_gpus() -> int:
    """How many GPUs torch can use here; a process of its own looks."""
    done = subprocess.run([sys.executable, "-c", _COUNT], capture_output=True, text=True, check=False)
    words = done.stdout.split()
    return int(words[-1]) if done.returncode == 0 and words else 0


def visible(device: str) -> str:
    """What CUDA_VISIBLE_DEVICES must be for a process that is to see only this GPU.

    Args:
        device: `cuda` or `cuda:N`, counted among those that are visible now.

    Raises:
        InvalidInput: there is no such GPU.
    """
    index, count = int(device.partition(":")[2] or 0), count_gpus()
    if index >= count:
        there = f"cuda:0 to cuda:{count - 1}" if count > 1 else "cuda:0" if count else "none, as far as torch can tell"
        raise InvalidInput("device", device, f"is not there; GPUs here: {there}", "name one of them, or cpu")
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    return seen.split(",")[index].strip() if seen else str(index)
