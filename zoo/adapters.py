"""Trains a LoRA adapter for each skill on a finished zoo's base, as peft folders: FOLDER/adapters/add …

Skills, seeds and numbers of steps are the experts', so that either can be searched with the zoo's tasks. Measured for
`tiny`, seed 0, on 200 documents of its own skill each: add .96, rev, srt and dic 1.0 (45 seconds). Needs peft,
which nothing else of the zoo does; torch and peft are loaded when something is trained.
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from zoo.make import Progress, build
from zoo.presets import Preset, preset
from zoo.skills import EXPERTS, make_dictionary

FOLDER = "adapters"
_MATRICES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_BUILDING = ".adapters"
# Factors start at nothing and few numbers are trained: they need larger steps than whole weights do, at any width.
_RATE = 1e-2


def train_adapters(
    folder: Path, names: Sequence[str] = EXPERTS, rank: int = 8, progress: Progress | None = None
) -> dict[str, Path]:
    """One adapter for each skill, trained on FOLDER/base; all of them appear in FOLDER/adapters when the last is done.

    On one thread of the CPU, in float32: equal zoos, names and ranks give equal bits on the same machine.

    Args:
        folder: a finished zoo; its base, experts and tasks are left as they are.
        names: the skills.
        rank: of every factor; the scale is 2.
        progress: told of every step.

    Returns:
        The folder of each adapter by its skill.

    Raises:
        FileNotFoundError: there is no finished zoo.
        FileExistsError: the zoo has adapters.
        ModuleNotFoundError: peft is not installed.
    """
    folder = Path(folder).resolve()
    identity = json.loads((folder / "zoo.json").read_text(encoding="utf-8"))["identity"]
    row, seed = preset(identity["preset"]["name"]), identity["seed"]
    zoo, done, building = build(folder, row.name, seed), folder / FOLDER, folder / _BUILDING
    if done.exists():
        raise FileExistsError(f"{done} exists: remove it to train again")
    shutil.rmtree(building, ignore_errors=True)
    for name in names:
        _train(zoo.base, building / name, name, row, seed, rank, progress or _silent)
    building.rename(done)
    return {name: done / name for name in names}


def _silent(stage: str, step: int, steps: int) -> None:
    pass


def _train(base: Path, to: Path, name: str, row: Preset, seed: int, rank: int, progress: Progress) -> None:
    from transformers import LlamaForCausalLM

    from zoo.train import finetune, one_thread

    peft: Any = import_module("peft")
    faster = replace(row, expert=replace(row.expert, rate=_RATE))
    with one_thread(seed):
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(_MATRICES), task_type="CAUSAL_LM")
        model = peft.get_peft_model(LlamaForCausalLM.from_pretrained(base), config)
        dictionary = make_dictionary(row.words, seed)
        finetune(model, row.learned.skills[name], faster, dictionary, seed, partial(progress, f"adapter {name}"))
        model.save_pretrained(to)
