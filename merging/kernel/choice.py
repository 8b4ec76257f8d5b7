"""Which code runs a pass: the compiled kernel where it can be had and serves the tensors, else torch.

The environment may say otherwise: MERGESEARCH_KERNEL is `auto` (the default), `native` (an error where the kernel
cannot be had) or `torch` (nothing is ever compiled).
"""

import logging
import os
from collections.abc import Sequence
from threading import Lock

import torch
from torch import Tensor

from merging.errors import InvalidInput
from merging.kernel.compile import NoKernel
from merging.kernel.native import DTYPES, Native

log = logging.getLogger(__name__)

VARIABLE = "MERGESEARCH_KERNEL"
_lock = Lock()
_tried: list[Native | NoKernel] = []


def native_for(
    models: Sequence[Tensor], held: Sequence[Tensor] = (), stored: torch.dtype = torch.float32
) -> Native | None:
    """The compiled kernel, or None where torch must do: another device, other dtypes, gaps in memory, no compiler.

    Args:
        models: these and the result.
        held: what selections hold (cuts, ranks).
        stored: what the result is rounded to.

    Raises:
        InvalidInput: the environment asks for what is not there.
    """
    mode = os.environ.get(VARIABLE) or "auto"
    if mode not in ("auto", "native", "torch"):
        raise InvalidInput(VARIABLE, mode, "is no kernel", "say auto, native or torch, or leave it unset")
    if mode == "torch":
        return None
    kernel = _kernel()
    if isinstance(kernel, NoKernel):
        if mode == "native":
            raise InvalidInput(VARIABLE, mode, f"cannot be had: {kernel}", "cure this, or say auto") from kernel
        return None
    served = stored in DTYPES and all(model.dtype in DTYPES for model in models)
    return kernel if served and all(_plain_memory(tensor) for tensor in (*models, *held)) else None


def _kernel() -> Native | NoKernel:
    """Compiled and loaded at the first call of a process, or why it is not."""
    with _lock:
        if not _tried:
            try:
                _tried.append(Native())
            except NoKernel as error:
                log.info(
                    "merges are built by torch, which takes longer", extra={"action": "kernel", "reason": str(error)}
                )
                _tried.append(error)
        return _tried[0]


def _plain_memory(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu" and tensor.is_contiguous() and not tensor.is_neg() and not tensor.is_conj()
