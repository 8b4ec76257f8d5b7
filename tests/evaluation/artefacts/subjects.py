"""Small random models of several kinds as subjects of a measurement, random texts, and plain ways to look at them."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    Qwen3MoeConfig,
)
from transformers.pytorch_utils import Conv1D

from evaluation.artefacts.contract import Beat, Subject
from evaluation.artefacts.texts import Text
from evaluation.artefacts.workshop import nobody
from evaluation.live import live_tensors
from evaluation.lm.budget import Budget
from merging.artefacts.request import Request
from merging.catalog.declare import ArtefactKind

VOCABULARY = 40
ROOM = 1 << 40
_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.3,  # far from uniform, so that a wrong mask or position shows
}
_SPARSE: dict[str, tuple[Any, dict[str, Any]]] = {
    "mixtral": (MixtralConfig, {"num_local_experts": 3}),
    "qwen3_moe": (Qwen3MoeConfig, {"num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 12}),
}


def llama(**settings: Any) -> Any:
    """A random Llama of two layers."""
    return _ready(LlamaForCausalLM, LlamaConfig(**(_SMALL | settings)))


def gpt2() -> Any:
    """A random GPT-2 of two layers: its linear maps are stored input first."""
    sizes = {"vocab_size": VOCABULARY, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
    return _ready(GPT2LMHeadModel, GPT2Config(**sizes, initializer_range=0.3))


def _ready(kind: Any, config: Any) -> Any:
    torch.manual_seed(0)
    return kind(config).eval().requires_grad_(False)


def mixture(family: str, folder: Path) -> tuple[Any, dict[str, Tensor]]:
    """A random model whose experts transformers fuses, and its tensors as a checkpoint names them."""
    config, settings = _SPARSE[family]
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config(**_SMALL, **settings, head_dim=8)).save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
    with safe_open(folder / "model.safetensors", "pt") as file:
        return model, live_tensors(model, list(file.keys()))


def some_texts(count: int = 7, seed: int = 0, longest: int = 12) -> list[Text]:
    """Random texts of uneven lengths."""
    rng = random.Random(seed)

    def tokens(most: int) -> list[int]:
        return [rng.randrange(VOCABULARY) for _ in range(rng.randint(1, most))]

    return [Text(tokens(longest), tokens(4)) for _ in range(count)]


def subject_of(
    model: Any, texts: list[Text], tensors: Mapping[str, Tensor] | None = None, room: int = ROOM, beat: Beat = nobody
) -> Subject:
    """The model as a subject; tensors by the names that the model gives them, if none are given."""
    found = dict(tensors or model.state_dict(keep_vars=True))
    if getattr(model.config, "tie_word_embeddings", False):
        found.pop("lm_head.weight", None)
    return Subject(model, found, texts, Budget(model, "cpu", None), room, beat)


def request(kind: ArtefactKind, **settings: Any) -> Request:
    """A request with these settings."""
    return Request(kind, "a", ("1",), "c", "5" * 32, tuple(settings.items()))


def ids(text: Text) -> Tensor:
    """The text as one row."""
    return torch.tensor([[*text.context, *text.answer]])


def linear(model: nn.Module) -> dict[str, nn.Module]:
    """The model's linear layers but the head, by the name of their weight."""
    named = model.named_modules()
    return {f"{n}.weight": m for n, m in named if isinstance(m, nn.Linear | Conv1D) and n != "lm_head"}


def loaded(path: Path) -> Any:
    """The model of a folder."""
    return LlamaForCausalLM.from_pretrained(path).eval().requires_grad_(False)


def seen_whole(model: Any, texts: Sequence[Text]) -> dict[str, Tensor]:
    """What each linear layer, the head among them, sees of the texts with their last tokens."""
    more = [Text(text.context, [*text.answer, 0]) for text in texts]  # `seen` leaves the last one out
    return seen(model, linear(model) | {"lm_head.weight": model.lm_head}, more)


@torch.no_grad()
def seen(model: Any, modules: Mapping[str, nn.Module], texts: Sequence[Text]) -> dict[str, Tensor]:
    """What each module sees of the texts, one text at a time without padding, float64 [positions, in]."""
    found: dict[str, list[Tensor]] = {name: [] for name in modules}

    def look(into: list[Tensor]) -> Callable[[Any, Any], None]:
        return lambda module, args: into.append(args[0].double().reshape(-1, args[0].shape[-1]))

    handles = [module.register_forward_pre_hook(look(found[name])) for name, module in modules.items()]
    for text in texts:
        model(input_ids=ids(text)[:, :-1])
    for handle in handles:
        handle.remove()
    return {name: torch.cat(values) for name, values in found.items()}


def moments(inputs: Tensor) -> Tensor:
    """E[x xᵀ] of inputs [n, in], float32."""
    return (inputs.mT @ inputs / len(inputs)).float()
