"""Writes a merge as what it changes of the base: a LoRA that peft loads, or a compressed delta.

Both come from the same engine as an export of the whole model. Deltas are taken before the merge is rounded to the
base's dtype: rounding is as large as small updates are, and of full rank.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging.adapters.export import Extracted, Kept, Pair, adapter_of, write_adapter
from merging.adapters.factored import concatenate, recompress
from merging.artefacts.request import requests
from merging.codecs.catalog import codec
from merging.codecs.folder import About, write
from merging.codecs.lowrank import LowRank
from merging.codecs.packing import pack_expert
from merging.codecs.record import Record
from merging.engine import Engine, Plan, is_linear
from merging.errors import InvalidRecipe
from merging.fingerprint import FingerprintCache
from merging.methods.contract import Role
from merging.models import Held, ModelSet
from merging.recipe import Recipe, relocated
from merging.roles import role
from merging.shard import Entry

_SUM = 1e-9  # by how much coefficients that leave the base in place may differ from 1 in sum


LOW_RANK = 1.0 - 1e-8
"""Keeps whatever is more than rounding: what is of low rank comes out whole, and nothing else becomes small."""


@dataclass(frozen=True)
class AdapterSettings:
    """How large an exported LoRA is.

    Attributes:
        energy: each matrix keeps the fewest directions that hold this share of its delta's Σ σ².
        rank: how many directions a matrix keeps at most; None: as many as that takes.
        prefix: as of `write_adapter`.
    """

    energy: float = LOW_RANK
    rank: int | None = None
    prefix: str = ""


def export_adapter(
    recipe: Recipe, models: ModelSet, to: Path, settings: AdapterSettings, extra: Mapping[str, bytes] | None = None
) -> Extracted:
    """Writes the merge as a LoRA of the base.

    Weighted sums of LoRAs are exact: their factors stand side by side, brought to fewer directions only where more
    than `rank` are left. All else is a truncated singular value decomposition. What is no matrix is written whole.

    Args:
        extra: more files by plain name.

    Returns:
        What was written, with the share of the delta that it holds.

    Raises:
        InvalidRecipe: the merge has other layers or another vocabulary than the base.
        InvalidModel: the merge is the base, or peft has no place for a change.
        NonFiniteCandidate, OutputError: as `export` raises them. Nothing is left behind, whatever is raised.
    """
    merge = _Merged(recipe, models)
    exact = dict(merge.sums(settings))
    rest = adapter_of(merge.deltas(skip=exact), settings.energy, settings.rank)
    factors = {name: pair for name, (pair, _) in exact.items()}
    kept = {name: row for name, (_, row) in exact.items()}
    found = Extracted({**factors, **rest.factors}, rest.whole, {**kept, **rest.kept})
    about = {"base_model_name_or_path": str(models.base.path), "task_type": "CAUSAL_LM"}
    files = {"recipe.json": relocated(recipe, to.absolute()).to_json().encode(), **(extra or {})}
    write_adapter(to, models.base, found.factors, found.whole, about, settings.prefix, files)
    return found


def export_compressed(
    recipe: Recipe,
    models: ModelSet,
    to: Path,
    form: tuple[str, Mapping[str, object]],
    extra: Mapping[str, bytes] | None = None,
    cache: FingerprintCache | None = None,
) -> Record:
    """Writes the merge as a compressed delta of the base, which is an expert of it like any other.

    Args:
        form: the codec's name, and those of its settings that differ from its defaults.
        extra: more files by plain name.

    Raises:
        InvalidStudy: there is no such codec or setting.
        InvalidRecipe, NonFiniteCandidate, OutputError: as `export_adapter`.
    """
    name, given = form
    chosen = codec(name).checked(given)
    merge = _Merged(recipe, models, rounded=codec(name).lossless)
    packed = pack_expert(models.base, merge, name, given)
    files = {"recipe.json": relocated(recipe, to.absolute()).to_json().encode(), **(extra or {})}
    return write(to, models.base, packed, About(name, chosen, models.base), cache, files)


class _Merged:
    """A merge as an expert of its base whose tensors are made when they are asked for: satisfies `Expert`."""

    def __init__(self, recipe: Recipe, models: ModelSet, *, rounded: bool = False) -> None:
        if recipe.slices or models.alignment is not None:
            key, value = ("slices", len(recipe.slices)) if recipe.slices else ("tokenizer", recipe.tokenizer)
            problem, remedy = "gives the result other tensors than the base has", "export it as a full checkpoint"
            raise InvalidRecipe(key, value, problem, remedy)
        self.path, self.key, self.config = models.base.path, "recipe", models.base.config
        self._models, self._engine = models, Engine(models)
        wide = recipe if rounded else recipe.model_copy(update={"dtype": "float32"})
        for measured, wanted in zip(requests(recipe, models), requests(wide, models), strict=True):
            if measured != wanted:  # of what hangs on a whole recipe
                self._engine.shelf.share(measured, wanted)
        self._plans: Mapping[str, Plan] = self._engine.plans(wide)

    @property
    def names(self) -> tuple[str, ...]:
        """The base's."""
        return self._models.base.names

    def entry(self, name: str) -> Entry:
        """As `Expert.entry`."""
        before = self._models.base.entry(name)
        return Entry(name, self._engine.stored(self._plans[name]), before.shape, 0, 0)

    def tensor(self, name: str) -> Tensor:
        """The merged tensor."""
        plan = self._plans[name]
        self._engine.merge(plan, out := torch.empty(self._models.shape(name), dtype=self._engine.stored(plan)))
        return out

    def held(self, name: str) -> Tensor:
        """The merged tensor."""
        return self.tensor(name)

    def fingerprint(self, cache: FingerprintCache | None = None) -> str:
        """It has none: nothing was written."""
        raise NotImplementedError("a merge that is not written has no fingerprint")

    def deltas(self, skip: Mapping[str, Any]) -> Iterator[tuple[str, Tensor, Role]]:
        """Name, τ in float32 and kind of every other floating-point tensor."""
        base = self._models.base
        for name in self.names:
            before = base.tensor(name)
            if name not in skip and before.is_floating_point() and self._changed(name):
                yield name, self.tensor(name).float().sub_(before), role(name, before.shape, base.config)

    def _changed(self, name: str) -> bool:
        """Whether any expert has another tensor than the base, of which a mean of equal ones differs by rounding alone;
        or a method that looks at data makes another one of it, as `pleas_pp` does where what reaches it has changed.
        """
        (before, experts), merge = self._models.stack(name), self._plans[name].merge
        wide = [torch.promote_types(before.dtype, expert.dtype) for expert in experts]
        if not all(torch.equal(before.to(t), x.to(t)) for t, x in zip(wide, experts, strict=True)):
            return True
        fitted = merge.readings is not None and not is_linear(merge.code)
        return fitted and not torch.equal(self.tensor(name).float(), before.float())

    def sums(self, settings: AdapterSettings) -> Iterator[tuple[str, tuple[Pair, Kept]]]:
        """The matrices that are weighted sums of LoRAs, as factors that lie as the tensor is stored."""
        for name, plan in self._plans.items():
            held, coefficients = self._models.held(name), self._coefficients(plan)
            if coefficients is None or not all(isinstance(each, LowRank) for each in held.experts):
                continue
            up, down = concatenate(_pairs(held), coefficients[1:])
            rank = settings.rank
            if rank is not None and rank < up.shape[1]:
                found = recompress(up, down, rank)
                yield name, ((found.up.float(), found.down.float()), Kept(rank, found.energy, found.kept))
            else:
                energy = float(((up.mT @ up) * (down @ down.mT)).sum())  # ‖up · down‖²
                yield name, ((up.float(), down.float()), Kept(up.shape[1], energy, energy))

    def _coefficients(self, plan: Plan) -> Sequence[float] | None:
        """The coefficients of base and experts, where these are numbers that leave the base in place."""
        if not is_linear(plan.merge.code):
            return None
        found = self._engine.coefficients(plan)
        if isinstance(found, Tensor) or abs(sum(found) - 1.0) > _SUM:
            return None
        return found


def _pairs(held: Held) -> list[Pair]:
    """The factors of every expert, their product lying as the tensor is stored."""
    found = []
    for each in held.experts:
        assert isinstance(each, LowRank)
        found.append((each.down.mT, each.up.mT) if each.transposed else (each.up, each.down))
    return found
