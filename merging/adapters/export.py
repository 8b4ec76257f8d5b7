"""Writes a LoRA as a folder that stock peft loads: adapter_config.json and adapter_model.safetensors.

The folder appears whole or not at all (`merging.folder`). Factors are given, or taken from a merged delta by
`adapter_of`. Nothing is quantised; ranks may differ from module to module.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from merging.adapters.config import CONFIG
from merging.adapters.factored import extract
from merging.adapters.names import shared_tables
from merging.adapters.opening import WEIGHTS
from merging.checkpoint import Checkpoint
from merging.errors import InvalidModel
from merging.folder import appearing, write_file
from merging.layers import layout
from merging.methods.contract import Role
from merging.roles import role, transposed
from merging.weightfiles import write_weights

_OUTER = "base_model.model."
_NO_TARGET = "dummy-target-modules"  # peft's own word for an adapter that only saves modules
_HEAD = "lm_head.weight"  # of a head that no checkpoint names, since it is tied
Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Kept:
    """How much of a delta a LoRA holds.

    Attributes:
        rank: of the factors; 0 for a tensor that did not change.
        energy: Σ τ².
        kept: Σ τ² of what is held.
    """

    rank: int
    energy: float
    kept: float

    @property
    def share(self) -> float:
        """The share of the energy that is held; 1 for a tensor that did not change."""
        return self.kept / self.energy if self.energy else 1.0


@dataclass(frozen=True)
class Extracted:
    """A delta as an adapter.

    Attributes:
        factors: up [rows, rank] and down [rank, columns] of every matrix that changed, float32.
        whole: the deltas of what is no matrix and changed, and of matrices that factors would not make smaller.
        kept: how much of each tensor is held, by name.
    """

    factors: Mapping[str, Pair]
    whole: Mapping[str, Tensor]
    kept: Mapping[str, Kept]

    @property
    def share(self) -> float:
        """The share of the whole delta's energy that is held."""
        energy = sum(row.energy for row in self.kept.values())
        return sum(row.kept for row in self.kept.values()) / energy if energy else 1.0


def adapter_of(deltas: Iterable[tuple[str, Tensor, Role]], energy: float = 0.99, rank: int | None = None) -> Extracted:
    """A LoRA of a merged delta, tensor by tensor.

    Args:
        deltas: name, τ as the tensor is stored, finite, and what kind of tensor it is; read one at a time.
        energy: each matrix keeps the fewest directions that hold this share of its Σ σ², in (0, 1].
        rank: how many directions a matrix keeps at most.
    """
    factors, whole, kept = {}, {}, {}
    for name, delta, kind in deltas:
        total = float(delta.double().square().sum())
        kept[name] = Kept(0, total, total)
        if not total:
            continue
        if kind in ("matrix", "embedding") and name.endswith(".weight"):
            found = extract(delta, energy, rank)
            size = found.up.shape[1]
            if rank is not None or size * sum(delta.shape) < delta.numel():
                factors[name] = found.up.float(), found.down.float()
                kept[name] = Kept(size, found.energy, found.kept)
                continue
        whole[name] = delta.clone()
    return Extracted(factors, whole, kept)


def write_adapter(
    to: Path,
    base: Checkpoint,
    factors: Mapping[str, Pair],
    whole: Mapping[str, Tensor],
    about: Mapping[str, Any],
    prefix: str = "",
    extra: Mapping[str, bytes] = MappingProxyType({}),
) -> None:
    """Writes the adapter θ_0 + up · down for matrices, θ_0 + τ for tensors that are written whole.

    Args:
        to: the folder to create; its parent must exist.
        base: what the adapter is for.
        factors: up [rows, rank] and down [rank, columns] by the base's names, their product lying as the tensor is
            stored; embeddings and heads too.
        whole: τ [*shape] of other tensors; biases of adapted modules are stored beside them, all else as modules that
            peft saves.
        about: further keys of adapter_config.json: `base_model_name_or_path`, `task_type` …
        prefix: what the model's class puts before the checkpoint's names, if that (`transformer.` for GPT-2).
        extra: more files by plain name.

    Raises:
        InvalidModel: a name or shape is not the base's, nothing changed, or peft has no place for a change.
        OutputError: `to` exists or cannot be written. Nothing is left behind, whatever is raised.
    """
    adapter = _Adapter(base, factors, whole, prefix)
    tensors = dict(sorted(adapter.tensors.items()))
    config = dict(about) | adapter.config()
    shapes = [(name, tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()]
    ordered = sorted(shapes, key=lambda row: (-row[1].itemsize, row[0]))
    with appearing(to, sum(tensor.nbytes for tensor in tensors.values())) as folder:
        write_weights(folder, [(WEIGHTS, ordered)], lambda name, out: _fill(out, tensors[name]), indexed=False)
        write_file(folder / CONFIG, json.dumps(config, indent=2, sort_keys=True).encode() + b"\n")
        for name, content in extra.items():
            write_file(folder / name, content)


def _fill(out: Tensor, tensor: Tensor) -> None:
    out.copy_(tensor)


class _Adapter:
    """The tensors and the config of an adapter, by peft's names."""

    def __init__(self, base: Checkpoint, factors: Mapping[str, Pair], whole: Mapping[str, Tensor], prefix: str) -> None:
        self.base, self._prefix = base, prefix
        self.tensors: dict[str, Tensor] = {}
        self._ranks: dict[str, int] = {}
        self._saved: set[str] = set()
        self._turned = self._tied = False
        if not factors and not whole:
            raise InvalidModel("adapter", None, "would change nothing", "write a delta that is not 0")
        self._check(factors, whole)
        places = layout(base.names, base.config).places
        for name, (up, down) in sorted(factors.items()):
            self._add_factors(name, up, down, table=self._is_table(name) and places[name].layer == "before")
        self._biases = self._add_biases(whole)
        for name in sorted(set(whole) - self._biases):
            self._add_module(name, whole)
        self._tie(set(factors) | set(whole))

    def config(self) -> dict[str, Any]:
        """adapter_config.json; the scale of every module is 1."""
        common = Counter(self._ranks.values()).most_common(1)[0][0] if self._ranks else 1
        others = {f"^{re.escape(module)}": rank for module, rank in self._ranks.items() if rank != common}
        return {
            "peft_type": "LORA",
            "r": common,
            "lora_alpha": common,
            "rank_pattern": others,
            "alpha_pattern": others,
            "target_modules": sorted(self._ranks) or _NO_TARGET,
            "modules_to_save": sorted(self._saved) or None,
            "bias": "lora_only" if self._biases else "none",
            "fan_in_fan_out": self._turned,
            "ensure_weight_tying": self._tied,
            "inference_mode": True,
            "lora_dropout": 0.0,
        }

    def _check(self, factors: Mapping[str, Pair], whole: Mapping[str, Tensor]) -> None:
        shapes = {name: (up.shape[0], down.shape[1]) for name, (up, down) in factors.items()}
        for name, shape in sorted((shapes | {name: tuple(t.shape) for name, t in whole.items()}).items()):
            if name not in self.base.names or self.base.entry(name).shape != shape:
                remedy = "write an adapter for the base that was merged"
                raise InvalidModel(name, list(shape), "is no tensor of the base, or of another shape", remedy)
        for name in sorted(set(factors) & set(whole)):
            raise InvalidModel(name, None, "is given as factors and whole", "give it once")

    def _is_table(self, name: str) -> bool:
        return role(name, self.base.entry(name).shape, self.base.config) == "embedding"

    def _add_factors(self, name: str, up: Tensor, down: Tensor, *, table: bool) -> None:
        """A is what multiplies the input: of tensors that lie input first, the transpose of `up`."""
        module, turned = self._module(name), transposed(name, self.base.config)
        if not name.endswith(".weight") or len(self.base.entry(name).shape) != 2:
            raise InvalidModel(name, None, "is the weight of no linear map or embedding", "give its delta whole")
        a, b = (up.mT, down.mT) if turned or table else (down, up)
        kinds = ("lora_embedding_A", "lora_embedding_B") if table else ("lora_A.weight", "lora_B.weight")
        for kind, factor in zip(kinds, (a, b), strict=True):
            self.tensors[f"{_OUTER}{module}.{kind}"] = factor.to(torch.float32).contiguous()
        self._ranks[module] = up.shape[1]
        self._turned = self._turned or turned

    def _add_biases(self, whole: Mapping[str, Tensor]) -> set[str]:
        """If any bias of an adapted module changed, all of them are stored; the names of those."""
        biases = {name for name in self.base.names if name.endswith(".bias") and self._module(name) in self._ranks}
        if not biases & set(whole):
            return set()
        for name in sorted(biases):
            self.tensors[f"{_OUTER}{self._module(name)}.base_layer.bias"] = self._expert(name, whole)
        return biases

    def _add_module(self, name: str, whole: Mapping[str, Tensor]) -> None:
        """The module that a tensor belongs to, with all of its tensors: peft saves modules."""
        module = name.rpartition(".")[0]
        inside = [other for other in self.base.names if other.startswith(f"{module}.")]
        if not module or any(self._module(other) in self._ranks for other in inside):
            problem = "changed, but is part of a module that has factors, too: peft has no place for both"
            raise InvalidModel(name, None, problem, "export a full checkpoint")
        self._saved.add(f"{self._prefix}{module}")
        for other in inside:
            self.tensors[f"{_OUTER}{self._prefix}{other}"] = self._expert(other, whole)

    def _tie(self, changed: Collection[str]) -> None:
        """Where an embedding is the head, too, peft keeps both, and the head's factors are the embedding's, turned."""
        for name in sorted(shared_tables(self.base) & set(changed)):
            stored = (alias for alias, original in sorted(self.base.tied.items()) if original == name)
            head = next(stored, _HEAD).rpartition(".")[0]
            table, self._tied = f"{_OUTER}{self._module(name)}", True
            if f"{table}.weight" in self.tensors:
                self.tensors[f"{_OUTER}{head}.weight"] = self.tensors[f"{table}.weight"]
                continue
            a, b = self.tensors[f"{table}.lora_embedding_A"], self.tensors[f"{table}.lora_embedding_B"]
            self.tensors[f"{_OUTER}{head}.lora_A.weight"] = b.mT.contiguous()
            self.tensors[f"{_OUTER}{head}.lora_B.weight"] = a.mT.contiguous()
            self._ranks[head] = self._ranks[self._module(name)]

    def _expert(self, name: str, whole: Mapping[str, Tensor]) -> Tensor:
        """θ_0 + τ in the base's dtype."""
        own = self.base.tensor(name)
        return (own.to(torch.float32) + whole[name].to(torch.float32)).to(own.dtype) if name in whole else own

    def _module(self, name: str) -> str:
        """The module's name as the model's class has it."""
        return self._prefix + name.rpartition(".")[0]
