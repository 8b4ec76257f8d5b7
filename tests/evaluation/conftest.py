"""A tiny model and tasks on disk, made once a session; nothing is fetched, caches stay in the session's folder."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from evaluation.spec import EvaluationSpec, TaskSpec
from evaluation.suite import Suite

BATCH = 8
TYPICAL = ("tiny_generate", "tiny_shots", "tiny_filters", "tiny_choice", "tiny_text")
KEY = "a study's key"


@dataclass(frozen=True)
class Tiny:
    """Folders: `root` holds `tasks` and `model`; `environment` is what a subprocess needs to see the same."""

    root: Path
    environment: dict[str, str]

    @property
    def model(self) -> Path:
        return self.root / "model"

    def spec(self, *tasks: str | TaskSpec, **settings: Any) -> EvaluationSpec:
        named = tuple(TaskSpec(name=t) if isinstance(t, str) else t for t in tasks or TYPICAL)
        return EvaluationSpec(tasks=named, include_path="tasks", batch_size=BATCH, **settings)


def harness(suite: Suite, name: str) -> Any:
    """lm-eval's task of that name."""
    from evaluation.harness import HarnessTask

    (task,) = (task for task in suite.tasks if task.name == name)
    assert isinstance(task, HarnessTask)
    return task


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tiny]:
    import datasets.config
    import torch

    from tests.evaluation.tiny import write_model, write_tasks

    root = tmp_path_factory.mktemp("tiny")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums in one order: here, and in the stock command compared with
    cache, offline = datasets.config.HF_DATASETS_CACHE, datasets.config.HF_DATASETS_OFFLINE
    datasets.config.HF_DATASETS_CACHE, datasets.config.HF_DATASETS_OFFLINE = root / "cache", True
    write_tasks(root / "tasks")
    write_model(root / "model")
    yield Tiny(
        root,
        os.environ
        | {
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "HF_DATASETS_CACHE": str(root / "cache"),
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
        },
    )
    datasets.config.HF_DATASETS_CACHE, datasets.config.HF_DATASETS_OFFLINE = cache, offline
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def live(tiny: Tiny) -> tuple[Any, Any]:
    """The tiny model and its tokenizer in memory. Tests that change weights put them back."""
    from evaluation.live import load_live

    return load_live(tiny.model, "cpu", "float32")
