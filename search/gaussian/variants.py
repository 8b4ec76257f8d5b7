"""Places with other choices than those tried: another method for a group, another expert to take."""

from collections.abc import Sequence

import numpy as np

from merging.catalog import Scalar
from search.gaussian.encoding import Encoding, Place, options, value_at
from search.space import Dimension, Pick, Space, dimensions


def drawn(space: Space, encoding: Encoding, random: np.random.Generator) -> Place:
    """A place drawn uniformly from the space."""
    return _walked(space, encoding, lambda dimension: _any(dimension, random))


def varied(
    space: Space,
    encoding: Encoding,
    parents: Sequence[Place],
    donors: Sequence[Place],
    count: int,
    random: np.random.Generator,
) -> list[Place]:
    """Places that are parents but for one or more choices.

    A number that this calls for is taken from the first donor that has it, the best known values first: defaults and
    middles of ranges are seldom good.
    """
    values: dict[str, Scalar] = {}
    for donor in reversed(donors):
        values.update(encoding.values(donor))
    found = []
    for index in range(count):
        parent = encoding.values(parents[index % len(parents)])
        switches = list(parents[index % len(parents)].choices)
        if not switches:
            continue
        changed = {name for name in switches if random.random() < 1.0 / len(switches)}
        changed.add(switches[int(random.integers(len(switches)))])

        def pick(dimension: Dimension, parent: dict[str, Scalar] = parent, changed: set[str] = changed) -> Scalar:
            if dimension.name in changed:
                return _any(dimension, random)
            known = parent.get(dimension.name, values.get(dimension.name))
            return _any(dimension, random) if known is None else known

        found.append(_walked(space, encoding, pick))
    return found


def _walked(space: Space, encoding: Encoding, pick: Pick) -> Place:
    """The place of the values that a walk picks."""
    params: dict[str, Scalar] = {}

    def noted(dimension: Dimension) -> Scalar:
        params[dimension.name] = value = pick(dimension)
        return value

    dimensions(space, noted)
    return encoding.place(params)


def _any(dimension: Dimension, random: np.random.Generator) -> Scalar:
    """A value drawn uniformly."""
    choices = options(dimension)
    return choices[int(random.integers(len(choices)))] if choices else value_at(dimension, float(random.random()))
