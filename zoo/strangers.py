"""Trains an expert of a finished zoo once more, from other random weights: FOLDER/strangers/srt-1 …

Same shape, same data, same skill, another start: its units stand in an order of their own, so that an average with the
zoo's experts is noise. For what is done about that. Torch is loaded when something is trained.
"""

import json
import os
import shutil
from functools import partial
from pathlib import Path

from zoo.make import Progress, build
from zoo.presets import preset
from zoo.skills import make_dictionary

FOLDER = "strangers"
_BUILDING = ".strangers"


def train_stranger(folder: Path, name: str, start: int = 1, progress: Progress | None = None) -> Path:
    """One expert from another start, trained as the zoo's base and then as its expert; found there if it was before.

    On one thread of the CPU, in float32: equal zoos, names and starts give equal bits on the same machine.

    Args:
        folder: a finished zoo; its base, experts and tasks are left as they are.
        name: its skill.
        start: 1 or more: which other random weights it begins with.

    Raises:
        FileNotFoundError: there is no finished zoo.
        ValueError: the start is the zoo's own.
    """
    if start < 1:
        raise ValueError(f"start {start} is the zoo's own: use 1 or more")
    folder = Path(folder).resolve()
    done, building = folder / FOLDER / f"{name}-{start}", folder / _BUILDING
    identity = json.loads((folder / "zoo.json").read_text(encoding="utf-8"))["identity"]
    if done.exists():
        return done
    row, seed = preset(identity["preset"]["name"]), identity["seed"]
    build(folder, row.name, seed)
    from zoo.tokenizer import vocabulary_of
    from zoo.train import finetune, new_model, one_thread, pretrain, save_model

    shutil.rmtree(building, ignore_errors=True)
    told = progress or _silent
    dictionary = make_dictionary(row.words, seed)
    with one_thread(seed + start):
        model = new_model(row)
        pretrain(model, row, dictionary, seed, partial(told, f"base of start {start}"))
        finetune(model, row.learned.skills[name], row, dictionary, seed, partial(told, f"stranger {name}"))
        save_model(model, building, vocabulary_of(row.learned.skills.values()))
    done.parent.mkdir(exist_ok=True)
    os.rename(building, done)
    return done


def _silent(stage: str, step: int, steps: int) -> None:
    pass
