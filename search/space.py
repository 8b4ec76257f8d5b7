"""The search space: which numbers make a recipe. One walk serves sampling, decoding and encoding.

`Space.walk(pick)` builds a recipe and asks `pick` for every value it needs, in a fixed order. With an
Optuna trial's `suggest` as `pick` it samples, with a look-up of stored parameters it decodes, with wanted
values it encodes. A parameter is asked for only where it exists: under the method that uses it.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from merging.catalog import CATALOG, Method, Parameter, Scalar
from merging.errors import InvalidRecipe
from merging.recipe import SCHEMA, DType, GroupMerge, Recipe
from merging.schedule import GroupKey, group_keys
from search.study import StudySpec


@dataclass(frozen=True)
class Dimension:
    """One number or choice of the search space.

    Attributes:
        name: unique; the name Optuna knows it by, e.g. `ties.density@layers0-3`.
        role: `method` chooses a method, `source` the expert of a one-hot method, `weight` and `parameter`
            are numbers of `method` (for `expert`, where it is a weight).
    """

    name: str
    role: Literal["method", "source", "weight", "parameter"]
    kind: Literal["float", "int", "bool", "choice"]
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Scalar, ...] = ()
    method: str = ""
    parameter: str = ""
    expert: str = ""


Pick = Callable[[Dimension], Scalar]


@dataclass(frozen=True)
class Space:
    """Everything a study may try."""

    base: str
    experts: Mapping[str, str]
    groups: tuple[GroupKey, ...]
    methods: tuple[Method, ...]
    per_group: bool
    bounds: Mapping[str, tuple[float, float]]
    seed: int
    dtype: DType | None

    def walk(self, pick: Pick) -> Recipe:
        """The recipe whose every value `pick` was asked for.

        Raises:
            InvalidRecipe: the values make no recipe (all weights zero where they are normalised).
        """
        shared: dict[str, Scalar] = {}

        def once(dimension: Dimension) -> Scalar:
            if dimension.name not in shared:
                shared[dimension.name] = pick(dimension)
            return shared[dimension.name]

        return self.recipe(tuple(self._group(key, once) for key in self.groups))

    def decode(self, params: Mapping[str, Any]) -> Recipe:
        """The recipe that stored parameters stand for."""
        return self.walk(lambda dimension: params[dimension.name])

    def recipe(self, groups: tuple[GroupMerge, ...]) -> Recipe:
        """A recipe over this study's models."""
        return Recipe(
            schema_=SCHEMA, base=self.base, experts=dict(self.experts), seed=self.seed, dtype=self.dtype, groups=groups
        )

    def uniform(self, method: str, weights: Mapping[str, float], parameters: Mapping[str, Scalar]) -> Recipe:
        """The recipe that treats every layer alike."""
        whole = (self.groups[0].layers[0], max(g.layers[1] for g in self.groups))
        group = GroupMerge(layers=whole, method=method, weights=dict(weights), parameters=dict(parameters))
        return self.recipe((group,))

    def _group(self, key: GroupKey, pick: Pick) -> GroupMerge:
        label = f"@{_label(key)}" if len(self.groups) > 1 else ""
        row = self._method(label if self.per_group else "", pick)
        parameters: dict[str, Scalar] = {}
        for parameter in row.parameters:
            place = "" if parameter.scope == "study" else label
            name = f"{row.name}.{parameter.name}{place}"
            parameters[parameter.name] = self._value(row, parameter, "parameter", name, "", pick)
        return GroupMerge(
            layers=key.layers,
            modules=key.modules,
            method=row.name,
            parameters=parameters,
            weights=self._weights(row, label, pick),
        )

    def _method(self, label: str, pick: Pick) -> Method:
        if len(self.methods) == 1:
            return self.methods[0]
        names = tuple(m.name for m in self.methods)
        chosen = pick(Dimension(f"method{label}", "method", "choice", choices=names))
        return CATALOG[str(chosen)]

    def _weights(self, row: Method, label: str, pick: Pick) -> dict[str, float]:
        if row.weight is None:
            return {}
        names = tuple(self.experts)
        if row.weighting == "one_hot":
            source = pick(Dimension(f"{row.name}.source{label}", "source", "choice", choices=names, method=row.name))
            return {name: float(name == source) for name in names}
        return {
            name: float(self._value(row, row.weight, "weight", f"{row.name}.weight[{name}]{label}", name, pick))
            for name in names
        }

    def _value(
        self,
        row: Method,
        parameter: Parameter,
        role: Literal["weight", "parameter"],
        name: str,
        expert: str,
        pick: Pick,
    ) -> Scalar:
        bounds = self.bounds.get(f"{row.name}.{parameter.name}")
        if bounds is None and not parameter.searched:
            return parameter.default
        low, high = bounds or (parameter.low, parameter.high)
        if parameter.kind in ("float", "int") and low == high:
            return int(low) if parameter.kind == "int" else low
        return pick(
            Dimension(
                name,
                role,
                parameter.kind,
                low,
                high,
                parameter.log,
                parameter.choices,
                method=row.name,
                parameter=parameter.name,
                expert=expert,
            )
        )


def _label(key: GroupKey) -> str:
    """A group's name inside a dimension's: `layers0-3`, `layers0-3.mlp`."""
    first, end = key.layers
    span = f"layers{first}-{end - 1}" if end - first > 1 else f"layer{first}"
    return span if key.modules == "all" else f"{span}.{key.modules}"


def make_space(spec: StudySpec, layer_count: int) -> Space:
    """The space of a study over a model of that many layers.

    Raises:
        InvalidInput: more layer ranges than the model has layers.
    """
    return Space(
        base=spec.models.base,
        experts={e.name: e.path for e in spec.models.experts},
        groups=group_keys(layer_count, spec.space.layers, spec.space.modules),
        methods=tuple(CATALOG[name] for name in spec.space.method_names),
        per_group=spec.space.choose == "per_group",
        bounds=spec.space.bounds,
        seed=spec.search.seed,
        dtype=spec.dtype,
    )


def dimensions(space: Space, pick: Pick | None = None) -> tuple[Dimension, ...]:
    """The dimensions met on one walk; without `pick` the walk takes the middle of each (the first choice).

    The values need not make a recipe: every value is asked for before any is judged.
    """
    met: list[Dimension] = []

    def note(dimension: Dimension) -> Scalar:
        met.append(dimension)
        return pick(dimension) if pick else middle(dimension)

    with suppress(InvalidRecipe):
        space.walk(note)
    return tuple(met)


def middle(dimension: Dimension) -> Scalar:
    """The middle of a dimension's range, or its first choice."""
    if dimension.kind == "bool":
        return False
    if dimension.kind == "choice":
        return dimension.choices[0]
    centre = (dimension.low + dimension.high) / 2
    return round(centre) if dimension.kind == "int" else centre
