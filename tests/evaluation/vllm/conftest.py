"""Models that vLLM serves, and what it means that two backends say the same."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from evaluation.result import TaskScore

# what vLLM's kernels for the CPU can: heads of 64; no text is longer than its window, which is two tokens shorter
SHAPE = {"hidden_size": 64, "num_attention_heads": 1, "head_dim": 64, "max_position_embeddings": 96}


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders `base`, `a` and `b`: a trained model and two that differ from it everywhere."""
    import torch
    from safetensors.torch import load_file, save_file

    from tests.evaluation.tiny import train_model

    root = tmp_path_factory.mktemp("served")
    train_model(root / "base", steps=120, **SHAPE)
    for seed, name in enumerate("ab"):
        shutil.copytree(root / "base", root / name)
        generator = torch.Generator().manual_seed(seed)
        weights = load_file(root / "base" / "model.safetensors")
        noisy = {k: v + 0.02 * torch.randn(v.shape, generator=generator) for k, v in weights.items()}
        save_file(noisy, root / name / "model.safetensors", metadata={"format": "pt"})
    return root


def assert_near(own: tuple[TaskScore, ...], stock: tuple[TaskScore, ...]) -> None:
    """The same answers, and numbers that differ as much as other kernels do."""
    assert [(score.task, score.metric, score.documents) for score in own] == [
        (score.task, score.metric, score.documents) for score in stock
    ]
    for ours, theirs in zip(own, stock, strict=True):
        assert flat(ours.items) == pytest.approx(flat(theirs.items), rel=1e-4, abs=1e-4), ours.task


def flat(items: Any) -> list[float]:
    """All numbers of nested lists."""
    if isinstance(items, list | tuple):
        return [number for item in items for number in flat(item)]
    return [float(items)]
