"""Builds a zoo into a folder, once: base, experts and tasks, with a manifest written last.

    FOLDER/zoo.json          the manifest; without it there is no zoo
    FOLDER/base              the base model
    FOLDER/experts/add       an expert for each skill of the preset that has one
    FOLDER/tasks             lm-eval tasks (include_path)

Everything is trained in FOLDER/.building and moved into place at the end, under a file lock, so that a killed
build leaves nothing that looks finished and two builds of one folder wait for each other. Other files in the
folder are left alone. This module loads no torch until something must be trained.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.presets import Preset
from zoo.presets import preset as preset_row
from zoo.tasks import write_yamls

VERSION = 3
"""Raised whenever the same preset and seed would give other models or documents."""

Progress = Callable[[str, int, int], None]
"""Called with the stage's name, the steps done and the steps in all."""

_MANIFEST = "zoo.json"
_LOCK = ".zoo.lock"
_BUILDING = ".building"
_PARTS = ("base", "experts", "tasks")


@dataclass(frozen=True, slots=True)
class Zoo:
    """A finished zoo.

    Attributes:
        folder: where it lies, absolute; the other paths lie in it.
        preset, seed: what it was built from.
        base: folder of the base model.
        experts: folder of each expert, by name.
        tasks: folder of the lm-eval tasks.
        metrics: the metric of each task, by name; all but `bits_per_byte` are better when higher.
    """

    folder: Path
    preset: str
    seed: int
    base: Path
    experts: dict[str, Path]
    tasks: Path
    metrics: dict[str, str]

    @property
    def task_names(self) -> tuple[str, ...]:
        """The tasks' names."""
        return tuple(self.metrics)


def build(folder: Path, preset: str = "tiny", seed: int = 0, progress: Progress | None = None) -> Zoo:
    """The zoo in `folder`: trained now, or found there if it was built from the same preset, seed and code.

    A zoo of another preset or seed in that folder is replaced.

    Raises:
        ValueError: no such preset.
        FileExistsError: the folder holds files of these names that are no zoo's.
    """
    row = preset_row(preset)
    folder = Path(folder).resolve()
    identity = _identity(row, seed)
    if not _holds(folder, identity):
        _refuse_foreign(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder / _LOCK):
            if not _holds(folder, identity):
                _build(folder, row, seed, identity, progress or _silent)
    write_yamls(folder / "tasks", row.learned.metrics)
    return Zoo(
        folder=folder,
        preset=row.name,
        seed=seed,
        base=folder / "base",
        experts={name: folder / "experts" / name for name in row.learned.experts},
        tasks=folder / "tasks",
        metrics=row.learned.metrics,
    )


def open_zoo(folder: Path) -> Zoo:
    """The finished zoo in a folder, whatever it was built from; nothing is trained.

    Raises:
        FileNotFoundError: there is no finished zoo.
        ValueError: it was built by another version.
    """
    manifest = Path(folder).resolve() / _MANIFEST
    identity = json.loads(manifest.read_text(encoding="utf-8"))["identity"]
    row, seed = preset_row(identity["preset"]["name"]), int(identity["seed"])
    if not _holds(manifest.parent, _identity(row, seed)):
        raise ValueError(f"{manifest.parent} was built by another version of the zoo: build it again")
    return build(manifest.parent, row.name, seed)


def _silent(stage: str, step: int, steps: int) -> None:
    pass


def _identity(row: Preset, seed: int) -> dict[str, Any]:
    return {"version": VERSION, "preset": row.identity, "seed": seed}


def _holds(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether the folder holds exactly that zoo, finished."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False
    return bool(manifest.get("identity") == identity) and all((folder / part).is_dir() for part in _PARTS)


def _refuse_foreign(folder: Path) -> None:
    if (folder / _LOCK).exists() or (folder / _MANIFEST).exists():
        return
    for part in _PARTS:
        if (folder / part).exists():
            raise FileExistsError(f"{folder / part} exists and is no zoo's: choose another folder or remove it")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds the file's lock; the system frees it when the process dies."""
    with path.open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(folder: Path, row: Preset, seed: int, identity: dict[str, Any], progress: Progress) -> None:
    from zoo.stages import train_zoo  # loads torch

    building = folder / _BUILDING
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    figures = train_zoo(building, row, seed, progress)
    (folder / _MANIFEST).unlink(missing_ok=True)
    for part in _PARTS:
        shutil.rmtree(folder / part, ignore_errors=True)
        (building / part).rename(folder / part)
    write_yamls(folder / "tasks", row.learned.metrics)
    shutil.rmtree(building)
    _write_durably(folder / _MANIFEST, json.dumps({"identity": identity, "figures": figures}, indent=2) + "\n")


def _write_durably(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
