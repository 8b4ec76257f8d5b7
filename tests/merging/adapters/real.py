"""Real adapters on small real models, made and merged by peft itself."""

import copy
import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel

from merging.adapters.opening import WEIGHTS
from merging.checkpoint import SINGLE, Checkpoint
from merging.codecs.contract import Packed

peft: Any = pytest.importorskip("peft")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
EVERY = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]


def tiny_gpt2(seed: int = 0) -> Any:
    """A random GPT-2 of two layers, whose matrices are stored [in, out] and whose biases are not 0."""
    torch.manual_seed(seed)
    sizes = {"n_layer": 2, "n_embd": 24, "n_head": 2, "vocab_size": 61, "n_positions": 40}
    model = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.02)
    return model


def saved(model: Any, folder: Path) -> Checkpoint:
    """The model as a checkpoint."""
    model.save_pretrained(folder)
    return Checkpoint(folder)


def quietly(call: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """peft tells of what it deprecates and of ties between embeddings: nothing that these tests are about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*given, **named)


def adapted(model: Any, folder: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, **settings: Any) -> Any:
    """A copy of the model with a trained-looking LoRA, and the LoRA saved: rank 4 and alpha 6 unless said otherwise."""
    torch.manual_seed(100 + seed)
    config = peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "init_lora_weights": False} | settings)
    inside = quietly(peft.get_peft_model, copy.deepcopy(model), config)
    with torch.no_grad():
        for name, parameter in inside.named_parameters():
            if parameter.requires_grad:
                moved = parameter + 0.05 * torch.randn(parameter.shape)
                parameter.copy_(moved.to(dtype) if "lora_" in name else moved)
    quietly(inside.save_pretrained, folder)
    if dtype != torch.float32:
        rewrite(folder, lambda held: {name: tensor.to(dtype) for name, tensor in held.items()})
    return inside.eval()


def merged_by_peft(inside: Any) -> Any:
    """The model with the adapter merged."""
    return quietly(copy.deepcopy(inside).merge_and_unload).eval()


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], Mapping[str, Tensor]]) -> None:
    """Changes an adapter's tensors."""
    held = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS).items()}
    (folder / WEIGHTS).unlink()
    save_file({name: tensor.contiguous() for name, tensor in change(held).items()}, folder / WEIGHTS, {"format": "pt"})


def reconfigure(folder: Path, **fields: Any) -> None:
    """Changes an adapter's config."""
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def renamed(folder: Path, to: Path, rename: Callable[[str], str]) -> Checkpoint:
    """A checkpoint whose tensors have other names."""
    to.mkdir()
    (to / "config.json").write_bytes((folder / "config.json").read_bytes())
    save_file({rename(name): tensor for name, tensor in load_file(folder / SINGLE).items()}, to / SINGLE)
    return Checkpoint(to)


def applied(base: Checkpoint, deltas: Mapping[str, Packed]) -> dict[str, Tensor]:
    """Every tensor of the expert, float32."""
    return {
        name: deltas[name].expert(base.tensor(name)).float() if name in deltas else base.tensor(name).float()
        for name in base.names
    }


def loaded(model: Any, tensors: Mapping[str, Tensor]) -> Any:
    """A copy of the model with these tensors."""
    other = copy.deepcopy(model)
    other.load_state_dict(dict(tensors), strict=True)
    return other.eval()


@torch.no_grad()
def logits(model: Any) -> Tensor:
    """What the model says to a text of twelve tokens."""
    found: Tensor = model(input_ids=torch.arange(12)[None] * 5 % 61).logits
    return found


def close(mine: Mapping[str, Tensor], model: Any, names: Mapping[str, str] | None = None) -> None:
    """Asserts that tensors are those of the model to 1e-6."""
    theirs = model.state_dict()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[(names or {}).get(name, name)], rtol=1e-6, atol=1e-6, msg=name)
