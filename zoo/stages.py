"""The stages of a build: documents, the base, then one expert after the other, each saved as it is done."""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from zoo.presets import Preset
from zoo.skills import EXPERTS, SKILLS, make_dictionary
from zoo.tasks import write_documents
from zoo.train import finetune, new_model, one_thread, pretrain, save_model


def train_zoo(folder: Path, row: Preset, seed: int, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Writes `base`, `experts` and `tasks` (the documents, not the YAMLs) into `folder`.

    Returns:
        What the manifest keeps: final losses, seconds, versions.
    """
    wall, cpu = time.monotonic(), time.process_time()
    dictionary = make_dictionary(row.words, seed)
    write_documents(folder / "tasks", dictionary, row.documents, seed)
    losses: dict[str, float] = {}
    with one_thread(seed):
        base = new_model(row)
        losses["base"] = pretrain(base, row, dictionary, seed, _stage(progress, "base"))
        save_model(base, folder / "base")
        for name in EXPERTS:
            expert = copy.deepcopy(base)
            losses[name] = finetune(expert, SKILLS[name], row, dictionary, seed, _stage(progress, f"expert {name}"))
            save_model(expert, folder / "experts" / name)
    return {
        "parameters": sum(parameter.numel() for parameter in base.parameters()),
        "losses": {name: round(loss, 4) for name, loss in losses.items()},
        "wall_seconds": round(time.monotonic() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _stage(progress: Callable[[str, int, int], None], name: str) -> Callable[[int, int], None]:
    return lambda step, steps: progress(name, step, steps)
