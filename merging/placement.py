"""Where models wait between builds: on the device if they fit, else in pinned memory, else in the mapped files.

They wait as they are kept: a LoRA as its factors, a compressed delta compressed.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from merging.models import ModelSet, Stack


def stack_source(
    models: ModelSet, devices: Mapping[str, torch.device], device_bytes: int | None = None, *, streamed: bool = False
) -> Callable[[str], Stack]:
    """A function that gives a tensor's stack on its device.

    On the CPU they wait in the mapped files: nothing is copied but embeddings whose vocabularies differ.

    Args:
        models: the models.
        devices: the device of each tensor.
        device_bytes: how much device memory the stacks may take, never more than half of what is free; None: that much.
        streamed: they wait in the mapped files alone, for builds so seldom that they shall cost no memory.
    """
    if streamed:
        return lambda name: models.held(name).moved(_mover(devices[name])).stack()
    away = {name for name, device in devices.items() if device.type != "cpu"}
    kept = {name: models.held(name) for name in devices if name not in away}  # once: it takes as long as a small merge
    need = sum(models.bytes_of(name) for name in away)
    fits = not away or need <= min(_half_of_free(devices), need if device_bytes is None else device_bytes)
    kept |= {name: models.held(name).moved(_mover(devices[name]) if fits else Tensor.pin_memory) for name in away}
    made = {name: held.stack() for name, held in kept.items() if held.plain}  # nothing to make: the tensors themselves

    def stack(name: str) -> Stack:
        if name in away and not fits:
            return kept[name].moved(_mover(devices[name])).stack()
        return made[name] if name in made else kept[name].stack()

    return stack


def _half_of_free(devices: Mapping[str, torch.device]) -> int:
    found = {device for device in devices.values() if device.type == "cuda"}
    return sum(torch.cuda.mem_get_info(device)[0] for device in found) // 2


def _mover(device: torch.device) -> Callable[[Tensor], Tensor]:
    return lambda tensor: tensor.to(device, non_blocking=True)
