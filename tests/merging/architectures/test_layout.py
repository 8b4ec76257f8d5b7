"""Where tensors stand and what they are, read from names, against what transformers' modules themselves are."""

import re
from collections.abc import Mapping
from typing import Any

import pytest
from torch import nn
from transformers.pytorch_utils import Conv1D

from merging.roles import role, transposed
from tests.merging.architectures.conftest import Saved
from tests.merging.architectures.families import FAMILIES

EACH_FAMILY = pytest.mark.parametrize("saved", FAMILIES, indirect=True, ids=lambda family: family.name)
MIXERS = re.compile(r"Attention|Attn|Mixer|RecurrentBlock|Rwkv.*SelfAttention")
TRANSPOSED_EXPERTS = {"gpt_oss", "llama4_text"}  # whose forward multiplies x @ W, not x @ W.T


def modules_above(model: Any, name: str) -> list[nn.Module]:
    """The modules that hold a parameter, outermost first."""
    parts = name.split(".")[:-1]
    return [model.get_submodule(".".join(parts[:i])) for i in range(len(parts) + 1)]


def owner_of(model: Any, name: str) -> nn.Module:
    """The module that a parameter belongs to."""
    return modules_above(model, name)[-1]


def is_transposed(model: Any, name: str) -> bool:
    """Whether a parameter is one of GPT-2's linear maps, or a stack of experts that multiplies from the right."""
    owner = owner_of(model, name)
    if isinstance(owner, Conv1D):
        return name.endswith("weight")
    return model.config.model_type in TRANSPOSED_EXPERTS and re.search(r"experts\.\w+_proj$", name) is not None


def layer_of(name: str, stacks: Mapping[str, int]) -> int | None:
    """The layer whose module list holds the parameter, counted over the stacks in order."""
    start = 0
    for stack, count in stacks.items():
        if name.startswith(stack + "."):
            return start + int(name[len(stack) + 1 :].split(".")[0])
        start += count
    return None


def expected_module(model: Any, name: str) -> str:
    """What a parameter within a layer is part of, by the classes of the modules that hold it."""
    above = modules_above(model, name)
    if re.search("norm|LayerScale", type(above[-1]).__name__ + name.split(".")[-2], re.IGNORECASE):
        return "other"
    if any(MIXERS.search(type(module).__name__.removesuffix("AttentionDecoderLayer")) for module in above):
        return "attention"
    return "mlp"


def expected_role(model: Any, name: str, shape: tuple[int, ...]) -> str:
    """What a parameter is, by the class of the module that holds it."""
    owner = owner_of(model, name)
    if sum(size > 1 for size in shape) < 2:
        return "vector"
    if len(shape) == 3 and re.search("Experts|Rglru", type(owner).__name__) and "bias" not in name:
        return "stack"
    if isinstance(owner, nn.Embedding) and "relative" not in name:
        return "embedding"
    if owner is model.get_output_embeddings() or name.startswith(("classifier", "lm_head.weight")):
        return "embedding"
    linear = isinstance(owner, nn.Linear | Conv1D) or "Router" in type(owner).__name__ or "Gate" in type(owner).__name__
    return "matrix" if linear and len(shape) == 2 and name.endswith("weight") else "other"


def stacks_of(saved: Saved) -> Mapping[str, int]:
    """How many layers each stack has."""
    lists = (name for name, module in saved.base.named_modules() if isinstance(module, nn.ModuleList))
    return saved.family.stacks or {next(lists): 2}


@EACH_FAMILY
def test_every_tensor_of_a_layer_is_in_that_layer_and_in_its_module(saved: Saved) -> None:
    model, found, stacks = saved.base, saved.models.layout, stacks_of(saved)
    assert found.layer_count == sum(stacks.values())
    own, seen = model.state_dict().keys(), set()
    for name, place in found.places.items():
        layer = layer_of(name, stacks)
        seen.add(layer)
        if layer is None:
            assert place.layer in {"before", "after"} and place.module == "other", name
            continue
        assert place.layer == layer, name
        if ".experts." in name:
            assert place.module == "mlp", name
        elif name in own and saved.family.name != "resnet":
            assert place.module == expected_module(model, name), name
    assert seen == {None, *range(found.layer_count)}


@EACH_FAMILY
def test_embeddings_stand_before_the_layers_and_heads_and_final_norms_after(saved: Saved) -> None:
    model, stacks = saved.base, stacks_of(saved)
    own, sides = model.state_dict().keys(), set()
    for name, place in saved.models.layout.places.items():
        if layer_of(name, stacks) is not None:
            continue
        sides.add(place.layer)
        head = name in own and owner_of(model, name) is model.get_output_embeddings()
        embedding = re.search("embed(?!_out)|wte|wpe|shared", name, re.IGNORECASE)
        known = embedding or head or re.search(r"classifier|norm", name, re.IGNORECASE)
        if known and not re.search("feature_|pre_layrnorm|projector", name):
            assert place.layer == ("before" if embedding else "after"), name
    assert sides == {"before", "after"}


@EACH_FAMILY
def test_roles_are_what_the_modules_are(saved: Saved) -> None:
    model, base = saved.base, saved.models.base
    own, seen = model.state_dict().keys(), set()
    for name in base.names:
        shape = base.entry(name).shape
        found, lies = role(name, shape, base.config), transposed(name, base.config)
        seen.add(found)
        if name in own:
            assert found == expected_role(model, name, shape), name
            assert lies == is_transposed(model, name), name
        elif ".experts." in name:
            assert (found, lies) == ("matrix", False), name
    assert seen >= ({"vector", "other", "embedding"} if saved.family.name == "resnet" else {"matrix", "vector"})
