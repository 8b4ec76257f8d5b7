"""Where the stacks wait between builds: on the device if they fit, else in pinned memory, else in the mapped files."""

from collections.abc import Callable, Mapping

import torch

from merging.models import ModelSet, Stack


def stack_source(
    models: ModelSet, devices: Mapping[str, torch.device], device_bytes: int | None = None
) -> Callable[[str], Stack]:
    """A function that gives a tensor's stack on its device.

    On the CPU these are views of the mapped files: nothing is copied but embeddings whose vocabularies differ.

    Args:
        models: the models.
        devices: the device of each tensor.
        device_bytes: how much device memory the stacks may take; None: half of what is free.
    """
    away = {name for name, device in devices.items() if device.type != "cpu"}
    if not away:
        views = {name: models.stack(name) for name in devices}  # made once: to make them takes as long as a small merge
        return views.__getitem__
    sources = (models.base, *models.experts.values())
    need = sum(e.end - e.start for name in away for e in (s.entry(name) for s in sources))
    if need <= (_half_of_free(devices) if device_bytes is None else device_bytes):
        held = {name: _moved(models.stack(name), devices[name]) for name in away}
        return lambda name: held[name] if name in held else models.stack(name)
    pinned = {name: _pinned(models.stack(name)) for name in away}
    return lambda name: _moved(pinned[name], devices[name]) if name in pinned else models.stack(name)


def _half_of_free(devices: Mapping[str, torch.device]) -> int:
    found = {device for device in devices.values() if device.type == "cuda"}
    return sum(torch.cuda.mem_get_info(device)[0] for device in found) // 2


def _moved(stack: Stack, device: torch.device) -> Stack:
    return Stack(stack.base.to(device, non_blocking=True), [x.to(device, non_blocking=True) for x in stack.experts])


def _pinned(stack: Stack) -> Stack:
    return Stack(stack.base.pin_memory(), [x.pin_memory() for x in stack.experts])
