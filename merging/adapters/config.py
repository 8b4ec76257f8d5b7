"""adapter_config.json of a LoRA: the scale of every module, and a refusal of all that is no fixed change of weights.

Says nothing about tensors (`opening.py`). Keys that do not change what the adapter computes (dropout, targets, how it
was initialised, as far as that left the base alone) are not read. No torch here.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from merging.errors import InvalidModel

V = TypeVar("V", int, float)
CONFIG = "adapter_config.json"
MERGE_IT = "merge it into its base with peft's merge_and_unload() and give the folder of the result"
"""The remedy for what peft can merge and this package does not."""

_AGAIN = "copy or download the folder again"
_UNCHANGED_BASE = (True, False, "gaussian", "eva", "orthogonal", "mica")  # initialisations that leave the base alone
# Truthy values that say no more than how a LoRA was trained.
_HARMLESS = frozenset({"eva_config", "corda_config", "loftq_config", "lora_ga_config", "runtime_config"})
_REFUSED = {
    "target_parameters": ("adapts parameters that are no modules (fused experts)", MERGE_IT),
    "lora_bias": ("adds to biases", MERGE_IT),
    "layer_replication": ("repeats layers of the base", "save the model with repeated layers as the base"),
    "trainable_token_indices": ("trains single rows of an embedding", MERGE_IT),
    "alora_invocation_tokens": ("acts on a part of each text only, which no merge can", "use a LoRA that always acts"),
    "megatron_config": ("may be split over several processes", "save it again as one whole, without Megatron"),
}


@dataclass(frozen=True)
class AdapterConfig:
    """What a LoRA computes: τ = scale · B A for every module that it adapts.

    Attributes:
        rank, alpha: of modules that no pattern names.
        rslora: whether the scale is alpha / √rank instead of alpha / rank.
        rank_patterns, alpha_patterns: others by regular expression, the first that matches counts.
        dora: whether each row of the result has a learned norm (arXiv:2402.09353).
        fan_in_fan_out: whether adapted matrices may be stored [in, out].
        bias: which of the base's biases it trained and stores.
        base_name: where its base is said to be; None if that is not said.
    """

    rank: int
    alpha: float
    rslora: bool = False
    rank_patterns: Mapping[str, int] = field(default_factory=dict)
    alpha_patterns: Mapping[str, float] = field(default_factory=dict)
    dora: bool = False
    fan_in_fan_out: bool = False
    bias: Literal["none", "all", "lora_only"] = "none"
    base_name: str | None = None

    def rank_of(self, module: str) -> int:
        """The rank of a module, named as the model's class names it."""
        return self.rank_patterns.get(_pattern(self.rank_patterns, module), self.rank)

    def scale(self, module: str) -> float:
        """What B A is multiplied by."""
        alpha = self.alpha_patterns.get(_pattern(self.alpha_patterns, module), self.alpha)
        rank = self.rank_of(module)
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def _pattern(patterns: Mapping[str, object], module: str) -> str:
    """The key that peft looks up: the first pattern that the whole name or its end after a dot matches."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", module)), module)


def read_config(folder: Path, key: str) -> AdapterConfig:
    """The folder's adapter_config.json.

    Args:
        folder: the adapter.
        key: where it is named, for messages.

    Raises:
        InvalidModel: there is none, it is damaged, or says what cannot be merged.
    """
    path = folder / CONFIG
    if not path.is_file():
        problem = f"has no {CONFIG}" if folder.is_dir() else "is no folder of an adapter"
        raise InvalidModel(key, str(folder), problem, "give the folder that peft's save_pretrained() wrote")
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidModel(key, str(path), f"cannot be read ({error})", _AGAIN) from error
    if not isinstance(content, dict):
        raise InvalidModel(key, str(path), "is not a JSON object", _AGAIN)
    named = f"{key}.{path.stem}"
    _check_kind(content, named)
    return _config(content, named)


def _check_kind(content: Mapping[str, Any], key: str) -> None:
    """Raises InvalidModel unless this is a LoRA whose every tensor is a fixed change of the base's."""
    kind, start = content.get("peft_type"), content.get("init_lora_weights", True)
    if kind != "LORA":
        raise InvalidModel(f"{key}.peft_type", kind, "is no LoRA", MERGE_IT if kind else "give a LoRA adapter of peft")
    for name, (problem, remedy) in _REFUSED.items():
        if content.get(name):
            raise InvalidModel(f"{key}.{name}", content[name], problem, remedy)
    if start not in _UNCHANGED_BASE:
        remedy = "save it with path_initial_model_for_weight_conversion, which makes it an adapter of the base"
        raise InvalidModel(f"{key}.init_lora_weights", start, "began by changing the base's own weights", remedy)
    for name, value in sorted(content.items()):
        variant = name.startswith("use_") or name.endswith("_config")
        if variant and value and name not in _HARMLESS | {"use_dora", "use_rslora"}:
            raise InvalidModel(f"{key}.{name}", value, "is a variant of LoRA that is not known here", MERGE_IT)


def _config(content: Mapping[str, Any], key: str) -> AdapterConfig:
    bias, base_name = content.get("bias", "none"), content.get("base_model_name_or_path")
    if bias not in ("none", "all", "lora_only"):
        raise InvalidModel(f"{key}.bias", bias, "is not known", "use none, all or lora_only")
    if base_name is not None and not isinstance(base_name, str):
        raise InvalidModel(f"{key}.base_model_name_or_path", base_name, "is not a name", _AGAIN)
    flags = {}
    for name in ("use_rslora", "use_dora", "fan_in_fan_out"):
        flags[name] = content.get(name) or False
        if not isinstance(flags[name], bool):
            raise InvalidModel(f"{key}.{name}", flags[name], "is neither true nor false", _AGAIN)
    return AdapterConfig(
        rank=_rank(content.get("r", 8), f"{key}.r"),
        alpha=_alpha(content.get("lora_alpha", 8), f"{key}.lora_alpha"),
        rslora=flags["use_rslora"],
        rank_patterns=_patterns(content.get("rank_pattern"), f"{key}.rank_pattern", _rank),
        alpha_patterns=_patterns(content.get("alpha_pattern"), f"{key}.alpha_pattern", _alpha),
        dora=flags["use_dora"],
        fan_in_fan_out=flags["fan_in_fan_out"],
        bias=bias,
        base_name=base_name or None,
    )


def _patterns(given: Any, key: str, check: Callable[[Any, str], V]) -> dict[str, V]:
    if not isinstance(given or {}, dict):
        raise InvalidModel(key, given, "is not a table of patterns", _AGAIN)
    for pattern in given or {}:
        try:
            re.compile(rf"(.*\.)?({pattern})$")
        except re.error as error:
            raise InvalidModel(key, pattern, f"is no regular expression ({error})", _AGAIN) from error
    return {pattern: check(value, f"{key}.{pattern}") for pattern, value in (given or {}).items()}


def _rank(value: Any, key: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InvalidModel(key, value, "is no rank", "use a whole number of 1 or more")
    return value


def _alpha(value: Any, key: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise InvalidModel(key, value, "is no number", "use a finite number")
    return float(value)
