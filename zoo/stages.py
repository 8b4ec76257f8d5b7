"""The stages of a build: documents, the base, then one expert after the other, each saved as it is done."""

import copy
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from zoo.presets import Preset
from zoo.skills import make_dictionary
from zoo.tasks import write_documents
from zoo.tokenizer import vocabulary_of
from zoo.train import finetune, new_model, one_thread, pretrain, save_model


def train_zoo(folder: Path, row: Preset, seed: int, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Writes `base`, `experts` and `tasks` (the documents, not the YAMLs) into `folder`.

    Returns:
        What the manifest keeps: final losses, seconds, versions.
    """
    wall, cpu = time.monotonic(), time.process_time()
    dictionary, learned = make_dictionary(row.words, seed), row.learned
    vocabulary = vocabulary_of(learned.skills.values())
    write_documents(folder / "tasks", dictionary, row.documents, seed, learned.skills.values())
    losses: dict[str, float] = {}
    with one_thread(seed):
        base = new_model(row)
        losses["base"] = pretrain(base, row, dictionary, seed, _stage(progress, "base"))
        save_model(base, folder / "base", vocabulary)
        for name in learned.experts:
            expert = copy.deepcopy(base)
            losses[name] = finetune(
                expert, learned.skills[name], row, dictionary, seed, _stage(progress, f"expert {name}")
            )
            save_model(expert, folder / "experts" / name, vocabulary)
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
