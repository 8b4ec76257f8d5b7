"""How the points of a search space appear in the copy: as they are, or, of a large space, summed up.

The dashboard sends every parameter of every trial to the browser and compares all of them with each other: it
is at ease with 16 parameters, slow with 32 and of no use with 128. A larger space is therefore shown as at
most 16 numbers: the method, its parameters averaged over the layers, each expert's weight averaged over blocks of
layers.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    distribution_to_json,
)

from merging.catalog import Scalar
from search.space import Dimension, Space, dimensions, middle
from search.strategies.sampled import distribution

MOST_AS_THEY_ARE = 32
MOST_SUMMARIES = 16
MOST_PARAMETERS = 5
MOST_BLOCKS = 4

Params = Mapping[str, Scalar]


@dataclass(frozen=True)
class Column:
    """One parameter of the copy.

    Attributes:
        written: the distribution as Optuna stores it.
        members: the dimensions it stands for; one of its own name where nothing is summed up.
    """

    name: str
    distribution: BaseDistribution
    written: str
    members: tuple[Dimension, ...]

    def value(self, params: Params) -> Scalar | None:
        """Its value at a point; None where the point has none of its dimensions."""
        there = [(d, params[d.name]) for d in self.members if d.name in params]
        if not there:
            return None
        if len(self.members) == 1 and self.name == self.members[0].name:
            return there[0][1]
        if isinstance(self.distribution, CategoricalDistribution):
            return Counter(value for _, value in there).most_common(1)[0][0]
        assert isinstance(self.distribution, FloatDistribution)
        numbers = [_number(d, value, self.name) for d, value in there]
        log = self.distribution.log
        mean = math.exp(math.fsum(map(math.log, numbers)) / len(numbers)) if log else math.fsum(numbers) / len(numbers)
        return min(max(float(f"{mean:.5g}"), self.distribution.low), self.distribution.high)


class Layout:
    """The columns of one study's copy.

    Attributes:
        dimensions: how many numbers the space has in all.
    """

    def __init__(self, space: Space) -> None:
        every = _every_dimension(space)
        self.dimensions = len(every)
        self.summarised = len(every) > MOST_AS_THEY_ARE
        made = _summaries(space, every) if self.summarised else [_column(d.name, distribution(d), (d,)) for d in every]
        self.columns = tuple(made)

    @property
    def identity(self) -> str:
        """Names the columns: a copy with others has to be made anew."""
        return json.dumps([(c.name, c.written) for c in self.columns])

    def point(self, params: Params | None) -> dict[str, tuple[Column, Scalar]]:
        """A trial's parameters in the copy, by name; none for a recipe outside the space."""
        values = {c.name: (c, c.value(params)) for c in self.columns} if params else {}
        return {name: (column, value) for name, (column, value) in values.items() if value is not None}


def _every_dimension(space: Space) -> list[Dimension]:
    """The dimensions met under any of the methods, each once."""
    met: dict[str, Dimension] = {}
    for row in space.methods:

        def pick(dimension: Dimension, name: str = row.name) -> Scalar:
            return name if dimension.role == "method" else middle(dimension)

        for dimension in dimensions(space, pick):
            met.setdefault(dimension.name, dimension)
    return list(met.values())


def _summaries(space: Space, every: Sequence[Dimension]) -> list[Column]:
    columns = []
    methods = tuple(d for d in every if d.role == "method")
    if methods:
        columns.append(_column("method", CategoricalDistribution(methods[0].choices), methods))
    names = Counter(d.parameter for d in every if d.role == "parameter" and d.kind != "choice")
    for name, _ in names.most_common(MOST_PARAMETERS):
        members = tuple(d for d in every if d.role == "parameter" and d.parameter == name and d.kind != "choice")
        columns.append(_mean(name, members))
    return columns + _weights(space, every, MOST_SUMMARIES - len(columns))


def _weights(space: Space, every: Sequence[Dimension], room: int) -> list[Column]:
    """Mean weights: of each expert and block of layers, or of each expert, or of all experts, as there is room."""
    weights = [d for d in every if d.role in ("weight", "source")]
    experts = tuple(space.experts)
    if len(experts) > room:
        numbers = tuple(d for d in weights if d.role == "weight")
        return [_mean("weight", numbers)] if numbers else []
    blocks = _blocks(space, [_place(d) for d in weights], min(MOST_BLOCKS, room // len(experts)))
    made = []
    for expert in experts:
        own = [d for d in weights if d.role == "source" or d.expert == expert]
        for label, places in blocks.items():
            members = tuple(d for d in own if _place(d) in places)
            if members:
                made.append(_mean(f"weight[{expert}]{label}", members))
    return made


def _blocks(space: Space, met: Sequence[str], most: int) -> dict[str, set[str]]:
    """Consecutive layers as blocks: what a column's name says of one, and the places of the dimensions it covers."""
    places = list(dict.fromkeys(met))  # in the order of the groups, which all have the same dimensions
    spans = sorted({key.layers for key in space.groups})
    count = min(most, len(spans))
    if count == 1 or len(places) != len(space.groups):
        return {"": set(places)}
    blocks = {}
    for index in range(count):
        own = spans[index * len(spans) // count : (index + 1) * len(spans) // count]
        first, last = own[0][0], own[-1][1] - 1
        label = f"@layer{first}" if first == last else f"@layers{first}-{last}"
        blocks[label] = {place for place, key in zip(places, space.groups, strict=True) if key.layers in own}
    return blocks


def _place(dimension: Dimension) -> str:
    """Where a dimension belongs, as its name says; empty if that is everywhere."""
    return dimension.name.partition("@")[2]


def _mean(name: str, members: tuple[Dimension, ...]) -> Column:
    low = min(_range(d)[0] for d in members)
    high = max(_range(d)[1] for d in members)
    return _column(name, FloatDistribution(low, high, log=all(d.log for d in members) and low > 0), members)


def _range(dimension: Dimension) -> tuple[float, float]:
    return (dimension.low, dimension.high) if dimension.kind in ("float", "int") else (0.0, 1.0)


def _number(dimension: Dimension, value: Scalar, column: str) -> float:
    """A value as a number; of the choice of one expert, whether it is the column's."""
    if dimension.role == "source":
        return float(column.startswith(f"weight[{value}]"))
    return float(value)


def _column(name: str, shape: BaseDistribution, members: tuple[Dimension, ...]) -> Column:
    return Column(name, shape, distribution_to_json(shape), members)
