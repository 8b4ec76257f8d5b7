"""Writes a ready-to-run study file for a zoo: four skills to win, and text that must not be forgotten."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from zoo.make import Zoo

_SPACE: dict[str, Any] = {"methods": ["task_arithmetic"], "layers": "each"}
_SEARCH: dict[str, Any] = {"strategy": "cmaes", "trials": 200, "parallel": 2, "seed": 0}
_EVALUATION: dict[str, Any] = {"documents": 256, "holdout": 0.3, "batch_size": 128}


def write_study(
    zoo: Zoo,
    path: Path,
    *,
    name: str = "zoo",
    space: Mapping[str, Any] | None = None,
    search: Mapping[str, Any] | None = None,
    evaluation: Mapping[str, Any] | None = None,
    objective: str = "mean",
) -> Path:
    """Writes the study to `path`; its model and task paths are relative to the file's folder.

    Args:
        space, search, evaluation: keys of those sections to set beside or instead of those above; None leaves one out.
    """
    path = Path(path).resolve()

    def place(target: Path) -> str:
        return Path(os.path.relpath(target, path.parent)).as_posix()

    content = {
        "schema": "mergesearch/study/v1",
        "name": name,
        "models": {
            "base": place(zoo.base),
            "experts": [{"path": place(folder), "name": expert} for expert, folder in zoo.experts.items()],
        },
        "space": _said(_SPACE, space),
        "search": _said(_SEARCH, search),
        "evaluation": {
            "tasks": [_task(task, metric) for task, metric in zoo.metrics.items()],
            "include_path": place(zoo.tasks),
            **_EVALUATION,
            **(evaluation or {}),
        },
        "objective": objective,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def _said(section: Mapping[str, Any], instead: Mapping[str, Any] | None) -> dict[str, Any]:
    return {key: value for key, value in {**section, **(instead or {})}.items() if value is not None}


def _task(task: str, metric: str) -> dict[str, Any]:
    return {"name": task, "metric": metric, "weight": 0.0 if task == "zoo_txt" else 1.0}
