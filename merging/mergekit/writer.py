"""Writes a recipe as a mergekit configuration, where mergekit can express it. No torch here.

Each run of layers that is merged alike becomes one output slice; what differs inside a run becomes filters.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.arrangement import Arrangement, arrange
from merging.errors import InvalidRecipe
from merging.layers import Layout
from merging.mergekit.names import METHODS, Foreign
from merging.mergekit.runs import Run, runs
from merging.mergekit.say import setting
from merging.mergekit.tell import BASE, choose, tell
from merging.mergekit.translate import Told
from merging.recipe import Recipe
from merging.schedule import assign


def write(recipe: Recipe, layout_of: Callable[[Path], Layout], stored: str | None = None) -> dict[str, Any]:
    """The mergekit configuration of a recipe, ready for YAML.

    Random draws (DARE, DELLA) have mergekit's distribution and other masks: it seeds one generator for all.

    Args:
        layout_of: opens the base's folder and says what its tensors are.
        stored: what the base is stored in, for a recipe that does not say; mergekit is told to compute in float32
            where this is known.

    Raises:
        InvalidRecipe: mergekit cannot express it; the message names what.
        InvalidModel: the base cannot be opened.
    """
    if recipe.compress is not None:
        remedy = "build it with mergesearch merge"
        raise InvalidRecipe("compress", recipe.compress.codec, "packs experts, which mergekit does not", remedy)
    experts = tuple(sorted(recipe.experts))
    arrangement = arrange(recipe, layout_of(Path(recipe.base)), experts)
    merges, index = (*recipe.groups, *recipe.overrides), assign(recipe, arrangement)
    used = sorted(set(index.values()))
    row = choose([merges[i] for i in used])
    _check_count(row, experts)
    end = _end(recipe, experts) if row.base == "end" else None
    told = {i: tell(row, merges[i], experts, end) for i in used}
    if row.name == "passthrough" and not _one_model_a_layer(arrangement, {n: told[i] for n, i in index.items()}):
        row = METHODS["linear"]
        told = {i: tell(row, merges[i], experts, end) for i in used}
    writing = _Writing(recipe, row, experts, end, _origin(row, told.values()))
    return writing.document(runs(recipe, arrangement, experts, {n: told[i] for n, i in index.items()}), stored)


def _check_count(row: Foreign, experts: Sequence[str]) -> None:
    fewest, most = row.inputs
    if row.name != "passthrough" and not fewest <= len(experts) <= most:
        wants = str(most) if fewest == most else f"at least {fewest}"
        problem = f"are {len(experts)}, and mergekit's {row.name} takes {wants}"
        raise InvalidRecipe("experts", list(experts), problem, "build it with mergesearch merge")


def _end(recipe: Recipe, experts: Sequence[str]) -> str:
    """The expert at t = 0: the one that is the base, else the first."""
    return next((name for name in experts if recipe.experts[name] == recipe.base), experts[0])


def _origin(row: Foreign, told: Iterable[Told]) -> bool:
    """Whether the base is the origin of deltas, which is one answer for the whole file."""
    origins = {each.origin for each in told} if row.base == "optional" else {row.base == "required"}
    if len(origins) > 1:
        problem = "is the base here and zero there, and mergekit has one answer"
        raise InvalidRecipe("parameters.origin", None, problem, "use one")
    return origins.pop()


def _one_model_a_layer(arrangement: Arrangement, told: Mapping[str, Told]) -> bool:
    """Whether each layer, with what stands beside it, comes from one model: what passthrough can say."""
    last = arrangement.layer_count - 1
    models: dict[int, set[str]] = {}
    for name, part in arrangement.parts.items():
        layer = part.place.layer
        beside = layer if isinstance(layer, int) else 0 if layer == "before" else last
        models.setdefault(beside, set()).update(told[name].each)
    return all(len(found) == 1 for found in models.values())


@dataclass(frozen=True)
class _Writing:
    """Puts a configuration together from its runs of layers."""

    recipe: Recipe
    row: Foreign
    experts: Sequence[str]
    end: str | None
    origin: bool

    def document(self, parts: Sequence[Run], stored: str | None) -> dict[str, Any]:
        """The configuration."""
        models = self._models(parts)
        slices: list[dict[str, Any]] = [{"sources": self._sources(run, models)} for run in parts]
        wide = [self._shared(run) for run in parts]
        same = all(each == wide[0] for each in wide)
        if not same:
            for part, parameters in zip(slices, wide, strict=True):
                part |= {"parameters": parameters} if parameters else {}
        found: dict[str, Any] = {"merge_method": self.row.name}
        base = self._base()
        if len(parts) == 1 and not self.recipe.slices and base in (None, *(s["model"] for s in slices[0]["sources"])):
            kept = ("model", "parameters")
            found["models"] = [{k: v for k, v in s.items() if k in kept} for s in slices[0]["sources"]]
        else:
            found["slices"] = slices
        if base is not None:
            found["base_model"] = base
        if same and wide[0]:
            found["parameters"] = wide[0]
        return found | self._storage(stored)

    def _base(self) -> str | None:
        """What mergekit calls the base: here also where config and tokenizer come from, if it is not an input."""
        if self.row.base == "optional" and not self.origin:
            return None
        return self.recipe.experts[self.end] if self.end else self.recipe.base

    def _models(self, parts: Sequence[Run]) -> list[str] | None:
        """The models of every slice, experts before the base; None where each slice has its own."""
        if self.row.name == "passthrough":
            return None
        weight = any(told.each.get(BASE, {}).get("weight") for run in parts for told in run.told.values())
        return [*self.experts, *([BASE] if self.origin or weight else [])]

    def _sources(self, run: Run, models: Sequence[str] | None) -> list[dict[str, Any]]:
        found = []
        for model in models or sorted({name for told in run.told.values() for name in told.each}):
            place = self.recipe.base if model == BASE else self.recipe.experts[model]
            source: dict[str, Any] = {"model": place, "layer_range": list(run.spans[model])}
            parameters: dict[str, Any] = {}
            for knob in self.row.knobs:
                if knob.per_model and not (model == BASE and self.origin):
                    missing = 0.0 if knob.name == "weight" else knob.default
                    values = {n: run.told[n].each.get(model, {}).get(knob.name, missing) for n in run.told}
                    parameters |= setting(knob, {run.names[model][n]: value for n, value in values.items()})
            found.append(source | ({"parameters": parameters} if parameters else {}))
        return found

    def _shared(self, run: Run) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for knob in self.row.knobs:
            if not knob.per_model:
                found |= setting(
                    knob, {name: told.shared.get(knob.name, knob.default) for name, told in run.told.items()}
                )
        return found

    def _storage(self, stored: str | None) -> dict[str, Any]:
        """Computed in float32, as here, and cast once; the tokenizer, where it is not the base's."""
        dtype, tokenizer = self.recipe.dtype or stored, self.recipe.tokenizer
        found = {} if dtype is None else {"dtype": "float32", "out_dtype": dtype}
        if tokenizer != "base":
            found["tokenizer_source"] = self.recipe.experts.get(tokenizer, tokenizer)
        return found
