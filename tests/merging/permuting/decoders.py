"""Small decoders of several families, every parameter random; and random orders of their units."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from merging.permuting.decoder import specify
from merging.permuting.specification import Specification

VOCABULARY = 61
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}
DECODERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, one key-value head": ("llama", {"num_key_value_heads": 1}),
    "llama, no groups": ("llama", {"num_key_value_heads": 4}),
    "mistral": ("mistral", {}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 12}),
    "gemma": ("gemma", {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma2": ("gemma2", {"head_dim": 16, "tie_word_embeddings": True, "query_pre_attn_scalar": 16}),
    "gemma3": ("gemma3_text", {"head_dim": 16, "tie_word_embeddings": True, "query_pre_attn_scalar": 16}),
    "olmo2": ("olmo2", {}),
    "phi3": ("phi3", {"bos_token_id": 1, "eos_token_id": 2}),
}


def decoder(name: str = "llama", seed: int = 0, **changes: Any) -> Any:
    """A model of the family with random parameters."""
    kind, own = DECODERS[name]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**_COMMON | own | changes)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(noise * (0.15 if parameter.dim() > 1 else 0.3) + (0.7 if parameter.dim() == 1 else 0.0))
    return model


def state(model: Any) -> dict[str, Tensor]:
    """Its tensors as a checkpoint has them: a tied head left out."""
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del tensors["lm_head.weight"]
    return tensors


def shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Their shapes."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


def specification(model: Any, *parts: str) -> Specification:
    """The permutations of a model."""
    return specify(shapes(state(model)), model.config.to_dict(), parts)


def random_orders(made: Specification, seed: int = 0) -> dict[str, Tensor]:
    """Random orders of everything; none leaves all units where they are."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {each.name: torch.randperm(each.size, generator=generator) for each in made.permutations}
    return {name: order.roll(int(torch.equal(order, order.sort().values))) for name, order in drawn.items()}


@torch.no_grad()
def logits(model: Any, tensors: Mapping[str, Tensor] | None = None) -> Tensor:
    """What the model answers on fixed tokens, [2, 12, VOCABULARY]; with other tensors if they are given."""
    if tensors is not None:
        missing, unexpected = model.load_state_dict(dict(tensors), strict=False)
        assert not unexpected and set(missing) <= {"lm_head.weight"}
    tokens = torch.randint(1, VOCABULARY, (2, 12), generator=torch.Generator().manual_seed(7))
    answer: Tensor = model(tokens).logits
    return answer
