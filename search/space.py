"""The search space: which numbers make a recipe. One walk serves sampling, decoding and encoding.

`Space.walk(pick)` builds a recipe and asks `pick` for every value it needs, in a fixed order. With an
Optuna trial's `suggest` as `pick` it samples, with a look-up of stored parameters it decodes, with wanted
values it encodes. A parameter is asked for only where it exists: under the method that uses it.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from db.records import Study
from merging.catalog import CATALOG, Method, Parameter, Scalar
from merging.compression import Compression
from merging.errors import InvalidRecipe, InvalidStudy
from merging.recipe import SCHEMA, DType, GroupMerge, Modules, Override, Recipe, Slice
from merging.schedule import GroupKey, group_keys
from search.places import Asked, Places, Where, between, label_of
from search.planning import Plan, planned
from search.study import StudySpec


@dataclass(frozen=True)
class Dimension:
    """One number or choice of the search space.

    Attributes:
        name: unique; the name Optuna knows it by, e.g. `ties.density@layers0-3`.
        role: `method` chooses a method, `source` the expert of a one-hot method, `weight` and `parameter`
            are numbers of `method` (for `expert`, where it is a weight).
        depth: where along the layers it is asked for, 0 to 1; None: for all layers alike.
        modules: which tensors there.
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
    depth: float | None = None
    modules: Modules = "all"


Pick = Callable[[Dimension], Scalar]


@dataclass(frozen=True)
class Space:
    """Everything a study may try.

    Attributes:
        per_group: whether each group has a method of its own.
        fixed: `method.parameter` -> the value it has in every recipe.
        knots: numbers are asked for at so many places along the layers, and each group lies between two; None: each
            group has its own.
        compress: what packs the experts in every recipe.
    """

    base: str
    experts: Mapping[str, str]
    groups: tuple[GroupKey, ...]
    methods: tuple[Method, ...]
    per_group: bool
    bounds: Mapping[str, tuple[float, float]]
    seed: int
    dtype: DType | None
    fixed: Mapping[str, Scalar] = field(default_factory=dict)
    knots: int | None = None
    tokenizer: str = "base"
    suite: str = ""
    compress: Compression | None = None

    @property
    def layer_count(self) -> int:
        """Layers of the models."""
        return max(group.layers[1] for group in self.groups)

    def layer_of(self, dimension: Dimension) -> int:
        """A layer that the dimension decides on."""
        last = self.layer_count - 1
        along = dimension.depth or 0.0
        return min(int(along * (last if self.knots else last + 1)), last)

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

    def recipe(
        self, groups: tuple[GroupMerge, ...], slices: tuple[Slice, ...] = (), overrides: tuple[Override, ...] = ()
    ) -> Recipe:
        """A recipe over this study's models."""
        merges = (*groups, *overrides)
        return Recipe(
            schema_=SCHEMA,
            base=self.base,
            experts=dict(self.experts),
            seed=self.seed,
            dtype=self.dtype,
            tokenizer=self.tokenizer,
            suite=self.suite if any(CATALOG[merge.method].artefacts for merge in merges) else "",
            compress=self.compress,
            slices=slices,
            groups=groups,
            overrides=overrides,
        )

    def uniform(self, method: str, weights: Mapping[str, float], parameters: Mapping[str, Scalar]) -> Recipe:
        """The recipe that treats every layer alike."""
        whole = (self.groups[0].layers[0], self.layer_count)
        group = GroupMerge(layers=whole, method=method, weights=dict(weights), parameters=dict(parameters))
        return self.recipe((group,))

    def _group(self, key: GroupKey, pick: Pick) -> GroupMerge:
        places = self._places(key)
        row = self._method(places if self.per_group else Places(""), pick)
        parameters: dict[str, Scalar] = {}
        for parameter in row.parameters:
            found = places if parameter.scope == "group" else Places("")
            name = f"{row.name}.{parameter.name}"
            parameters[parameter.name] = self._value(row, parameter, Asked("parameter", name), found, pick)
        weights = self._weights(row, places, pick)
        return GroupMerge(
            layers=key.layers, modules=key.modules, method=row.name, parameters=dict(parameters), weights=weights
        )

    def _places(self, key: GroupKey) -> Places:
        """Where the group's numbers are asked for."""
        if self.knots is None:
            alone = len(self.groups) == 1
            depth = None if alone else (key.layers[0] + key.layers[1]) / 2 / self.layer_count
            return Places("" if alone else f"@{label_of(key)}", depths=(depth, None), modules=key.modules)
        last = self.layer_count - 1
        along = (self.knots - 1) * key.layers[0] / last if last else 0.0
        first = min(int(along), self.knots - 2)
        part = "" if key.modules == "all" else f".{key.modules}"
        depths = (first / (self.knots - 1), (first + 1) / (self.knots - 1))
        if along == first:
            return Places(f"@knot{first}{part}", depths=depths, modules=key.modules)
        return Places(f"@knot{first}{part}", f"@knot{first + 1}{part}", along - first, depths, key.modules)

    def _method(self, places: Places, pick: Pick) -> Method:
        if len(self.methods) == 1:
            return self.methods[0]
        names, (label, where) = tuple(m.name for m in self.methods), places.nearest
        chosen = pick(Dimension(f"method{label}", "method", "choice", choices=names, **where))
        return CATALOG[str(chosen)]

    def _weights(self, row: Method, places: Places, pick: Pick) -> dict[str, float]:
        if row.weight is None:
            return {}
        names = tuple(self.experts)
        if row.weighting == "order":
            return {name: float(position) for position, name in enumerate(names, 1)}
        if row.weighting == "one_hot":
            label, where = places.nearest
            source = pick(
                Dimension(f"{row.name}.source{label}", "source", "choice", choices=names, method=row.name, **where)
            )
            return {name: float(name == source) for name in names}
        return {
            name: float(self._value(row, row.weight, Asked("weight", f"{row.name}.weight[{name}]", name), places, pick))
            for name in names
        }

    def _value(self, row: Method, parameter: Parameter, asked: Asked, places: Places, pick: Pick) -> Scalar:
        key = f"{row.name}.{parameter.name}"
        bounds = self.bounds.get(key)
        if key in self.fixed:
            return parameter.check(self.fixed[key], f"space.fixed.{key}")
        if bounds is None and not parameter.searched:
            return parameter.default
        low, high = bounds or (parameter.low, parameter.high)
        numeric = parameter.kind in ("float", "int")
        if numeric and low == high:
            return int(low) if parameter.kind == "int" else low

        def at(place: tuple[str, Where]) -> Scalar:
            label, where = place
            about = (low, high, parameter.log, parameter.choices, row.name, parameter.name, asked.expert)
            return pick(Dimension(f"{asked.name}{label}", asked.role, parameter.kind, *about, **where))

        if places.second is None or not numeric:
            return at(places.nearest)
        first, second = (float(at(places.at(i))) for i in range(2))
        value = between(first, second, places.share, parameter.log)
        return round(value) if parameter.kind == "int" else min(max(value, low), high)


def space_of(study: Study) -> Space:
    """The space of a study that was created."""
    setup = study.setup  # of an earlier version it says less
    packed = setup.get("compressed")
    compress = None if packed is None else Compression.model_validate(packed["by"])
    decided = setup.get("plan")
    spec = planned(StudySpec.model_validate(study.spec), None if decided is None else Plan.model_validate(decided))
    return make_space(spec, setup["layer_count"], setup.get("tuning_digest", ""), compress)


def make_space(spec: StudySpec, layer_count: int, suite: str = "", compress: Compression | None = None) -> Space:
    """The space of a study over a model of that many layers.

    Args:
        suite: digest of its suite.
        compress: what its experts are packed by.

    Raises:
        InvalidInput: more layer ranges than the model has layers.
    """
    if spec.space.gradient and spec.space.gradient > layer_count:
        remedy = f"use 2 to {layer_count} knots" if layer_count > 1 else "leave it out"
        problem = f"is more knots than the model has layers ({layer_count})"
        raise InvalidStudy("space.gradient", spec.space.gradient, problem, remedy)
    return Space(
        base=spec.models.base,
        experts={e.name: e.path for e in spec.models.experts},
        groups=group_keys(layer_count, "each" if spec.space.gradient else spec.space.layers or 1, spec.space.modules),
        methods=tuple(CATALOG[name] for name in spec.space.method_names),
        per_group=spec.space.choose == "per_group",
        bounds=spec.space.bounds,
        seed=spec.search.seed,
        dtype=spec.dtype,
        fixed=spec.space.fixed,
        knots=spec.space.gradient,
        tokenizer=spec.models.tokenizer,
        suite=suite,
        compress=compress,
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
