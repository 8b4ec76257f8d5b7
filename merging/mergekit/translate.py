"""What mergekit is told for one tensor, in our words: a method, its parameters and weights. No torch here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from merging.catalog import Scalar, method
from merging.errors import InvalidRecipe
from merging.mergekit.names import Foreign, Knob
from merging.recipe import Value

Each = tuple[tuple[str, Scalar], ...]  # one value an expert, by name


@dataclass(frozen=True)
class Numbers:
    """One merge that can be compared: `Merge` with its mappings as sorted pairs."""

    method: str
    parameters: tuple[tuple[str, Scalar | Each], ...]
    weights: tuple[tuple[str, float], ...]

    def fields(self) -> dict[str, object]:
        """What a group or an override of a recipe is made of."""
        parameters = {name: dict(v) if isinstance(v, tuple) else v for name, v in self.parameters}
        return {"method": self.method, "parameters": parameters, "weights": dict(self.weights)}


@dataclass(frozen=True)
class Told:
    """What mergekit is told for one tensor.

    Attributes:
        shared: the parameters that all models share.
        each: those of each expert that takes part, by its name here.
        end: the expert at t = 0, for a method between two ends.
        origin: whether the base is the origin of deltas, for a method that can do without.
    """

    shared: Mapping[str, Scalar]
    each: Mapping[str, Mapping[str, Scalar]]
    end: str | None = None
    origin: bool = True


def translate(row: Foreign, told: Told, experts: Sequence[str]) -> Numbers:
    """The same merge in our words.

    Args:
        experts: all experts of the recipe; those that do not take part get weight 0.

    Raises:
        InvalidRecipe: our method cannot do it.
    """
    ours = method(row.ours)
    weights = dict.fromkeys(experts, 0.0) | _weights(row, told)
    given: dict[str, Value] = dict(row.fixed)
    for knob in row.knobs:
        _check_only(row, knob, told)
        if knob.ours:
            given |= _parameter(row, knob, told)
    if row.joint:
        given[row.joint.ours] = row.joint.values[tuple(told.shared[name] for name in row.joint.knobs)]
    if row.base == "optional":
        given["origin"] = "base" if told.origin else "zero"
    weights |= dict.fromkeys(_emptied(row, told), 0.0)
    if ours.weight is None:
        if set(told.each) != set(experts):
            problem = f"are not the same in all slices, and {ours.name} has no weights to leave one out"
            raise InvalidRecipe("slices", sorted(told.each), problem, "merge each part by itself, then stack them")
        weights = {}
    elif row.elected and ours.normalised and not any(weights.values()):
        return Numbers("layer_swap", (), tuple(sorted(weights.items())))  # nothing takes part: the base as it is
    parameters = {}
    for name, value in given.items():
        declared = ours.parameter(name)
        if declared is None:
            problem = f"needs {name}: {value} of our {ours.name}, which has no such option"
            raise InvalidRecipe("merge_method", row.name, problem, "choose another method")
        if value != declared.default:
            parameters[name] = tuple(sorted(value.items())) if isinstance(value, dict) else value
    return Numbers(ours.name, tuple(sorted(parameters.items())), tuple(sorted(weights.items())))


def _weights(row: Foreign, told: Told) -> dict[str, float]:
    if row.weights == "weight":
        return {name: float(values["weight"]) for name, values in told.each.items()}
    if row.weights == "equal":
        return dict.fromkeys(told.each, 1.0)
    t = float(told.shared["t"])
    if not 0 <= t <= 1:
        raise InvalidRecipe("parameters.t", t, "lies beyond the two models", "use a value in [0, 1]")
    return {name: 1 - t if name == told.end else t for name in told.each}


def _emptied(row: Foreign, told: Told) -> list[str]:
    """Experts that keep nothing (density 0): they have no vote, which is what weight 0 means here.

    Raises:
        InvalidRecipe: their weight would still count in the sum that the others are divided by.
    """
    empty = [name for name, values in told.each.items() if float(values.get("density", 1.0)) <= 0]
    if empty and not row.elected and told.shared.get("normalize"):
        problem = f"drops all of {empty[0]}, whose weight {row.name} still counts where it normalizes"
        raise InvalidRecipe("parameters.density", 0, problem, "leave that model out")
    return empty


def _check_only(row: Foreign, knob: Knob, told: Told) -> None:
    value = told.shared.get(knob.name)
    if knob.only is not None and value is not None and value != knob.only:
        raise InvalidRecipe(f"parameters.{knob.name}", value, f"is not done by our {row.ours}", f"use {knob.only}")


def _parameter(row: Foreign, knob: Knob, told: Told) -> dict[str, Value]:
    """Our parameter's value; nothing where our method has no such choice and mergekit's is the usual one."""
    declared = method(row.ours).parameter(knob.ours)
    if not knob.per_model:
        value = told.shared[knob.name]
        if declared is None and value == knob.default:
            return {}
        return {knob.ours: knob.values.get(value, value)}
    each = {name: _of_model(knob, values) for name, values in told.each.items()}
    if len(set(each.values())) == 1:
        return {knob.ours: next(iter(each.values()))}
    if declared is not None and not declared.per_expert:
        raise InvalidRecipe(f"parameters.{knob.name}", each, f"is one number in our {row.ours}", "give one for all")
    return {knob.ours: dict(each)}


def _of_model(knob: Knob, values: Mapping[str, Scalar]) -> Scalar:
    """One model's value: epsilon as a share of the widest band that density leaves, a density of 0 as any other."""
    value = knob.values.get(values[knob.name], values[knob.name])
    density = float(values.get("density", 1.0))
    if knob.name == "density" and density <= 0:
        return 1.0
    if knob.name != "epsilon":
        return value
    widest = min(density, 1 - density)
    if widest <= 0:  # nothing is drawn
        return 0.0
    if float(value) >= widest:
        raise InvalidRecipe(
            "parameters.epsilon", value, f"takes density {density:g} out of (0, 1)", f"use less than {widest:g}"
        )
    return float(value) / widest
