"""Small models with planted structure, and their diagnosis."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from merging.diagnosis.measure import Diagnosis, diagnose
from merging.diagnosis.summary import summarise
from merging.diagnosis.warnings import Remark, judge
from tests.merging.factories import write_tensors

LAYERS, WIDTH, UNITS, WORDS = 3, 64, 160, 96
Tensors = dict[str, Tensor]


def base_tensors(seed: int = 0) -> Tensors:
    """A Llama's tensors at random, of three layers."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator) * 0.05

    tensors = {"model.embed_tokens.weight": draw(WORDS, WIDTH), "model.norm.weight": torch.ones(WIDTH)}
    for layer in range(LAYERS):
        own = {
            "self_attn.q_proj": draw(WIDTH, WIDTH),
            "self_attn.o_proj": draw(WIDTH, WIDTH),
            "mlp.gate_proj": draw(UNITS, WIDTH),
            "mlp.up_proj": draw(UNITS, WIDTH),
            "mlp.down_proj": draw(WIDTH, UNITS),
            "input_layernorm": torch.ones(WIDTH),
        }
        tensors |= {f"model.layers.{layer}.{name}.weight": tensor for name, tensor in own.items()}
    return tensors


def tuned(tensors: Tensors, seed: int, size: float = 1e-3) -> Tensors:
    """The model after a fine-tuning that left noise of this size."""
    generator = torch.Generator().manual_seed(1000 + seed)
    return {name: t + torch.randn(t.shape, generator=generator) * size for name, t in tensors.items()}


def shuffled(tensors: Tensors, seed: int = 0) -> Tensors:
    """The same function with its hidden units in another order."""
    order = torch.randperm(UNITS, generator=torch.Generator().manual_seed(seed))
    rows = {name: t[order] for name, t in tensors.items() if "gate_proj" in name or "up_proj" in name}
    columns = {name: t[:, order].contiguous() for name, t in tensors.items() if "down_proj" in name}
    return tensors | rows | columns


def diagnosed(root: Path, base: Tensors, **experts: Tensors) -> Diagnosis:
    """The diagnosis of models of these tensors."""
    paths = {name: write_tensors(root / name, tensors) for name, tensors in experts.items()}
    return diagnose(write_tensors(root / "base", base), paths)


def remarks(found: Diagnosis) -> Mapping[tuple[str, tuple[str, ...]], Remark]:
    """What is judged of it, by code and models."""
    return {(remark.code, remark.models): remark for remark in judge(found, summarise(found, 8))}
