"""A mergekit configuration as records: every key it has, nothing else. No torch here.

mergekit itself passes over keys and parameters it does not know (`densty: 0.5` merges with density 1); here they are
refused.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from merging.errors import InvalidRecipe

Plain = bool | int | float | str
DTYPES = ("float32", "bfloat16", "float16")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Rule(_Record):
    """One value of a parameter, for the tensors whose name contains `filter` (None and "*": for all).

    A tuple is a gradient: its values lie evenly along the layers of a slice.
    """

    value: Plain | tuple[Plain, ...]
    filter: str | None = None

    def fits(self, name: str) -> bool:
        """Whether the rule speaks of the tensor of that name."""
        return self.filter is None or self.filter == "*" or self.filter in name


def _rules(found: Any) -> Any:
    """A value, a gradient, a `{filter, value}` or a list of these: as a list of rules, the first that fits wins."""
    if isinstance(found, tuple):
        return found  # rules already
    if isinstance(found, dict):
        return [found]
    if isinstance(found, list) and any(isinstance(part, dict) for part in found):
        return found
    return [] if found == [] else [{"value": found}]


def _folder(found: Any) -> Any:
    """A model's folder; adapters (`model+lora`) and revisions (`model@revision`) are read by the hub, not here."""
    while isinstance(found, dict) and set(found) <= {"model", "path"} and len(found) == 1:
        found = next(iter(found.values()))  # {model: {path: ...}}, as mergekit itself writes a reference
    if isinstance(found, str) and ("+" in found or "@" in found):
        raise ValueError("adapters and revisions are not read: name the folder of a full checkpoint")
    return found


def _span(found: tuple[int, int]) -> tuple[int, int]:
    if found[0] >= found[1]:
        raise ValueError("holds no layer: write [first, end), first below end")
    return found


Setting = Annotated[tuple[Rule, ...], BeforeValidator(_rules)]
Settings = Annotated[dict[str, Setting], BeforeValidator(lambda found: {} if found is None else found)]
Reference = Annotated[str, BeforeValidator(_folder)]
Range = Annotated[tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]], AfterValidator(_span)]


class Source(_Record):
    """One model of a slice, with the layers taken from it."""

    model: Reference
    layer_range: Range
    parameters: Settings = {}


class OutputSlice(_Record):
    """A run of the result's layers. `residual_weight` is a key that mergekit reads and never uses."""

    sources: tuple[Source, ...] = Field(min_length=1)
    base_model: Reference | None = None
    residual_weight: float | None = None
    parameters: Settings = {}


class InputModel(_Record):
    """One whole model."""

    model: Reference
    parameters: Settings = {}


class Tokenizer(_Record):
    """Whose vocabulary the result has: `union`, `base`, or a model."""

    source: Reference = "union"


class Document(_Record):
    """The configuration: `models` or `slices`, one method, parameters for all."""

    merge_method: str
    models: tuple[InputModel, ...] | None = None
    slices: tuple[OutputSlice, ...] | None = None
    base_model: Reference | None = None
    parameters: Settings = {}
    dtype: str | None = None
    out_dtype: str | None = None
    tokenizer_source: Reference | None = None
    tokenizer: Tokenizer | None = None
    chat_template: Literal["auto"] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Document":
        if bool(self.models) == bool(self.slices):
            raise InvalidRecipe("models", None, "or slices must be given, and not both", "write one of them")
        if self.tokenizer_source and self.tokenizer:
            raise InvalidRecipe("tokenizer", None, "and tokenizer_source are both given", "write one of them")
        return self

    def references(self) -> Iterator[tuple[str, str]]:
        """Every model that is named, with the key that names it."""
        if self.base_model:
            yield "base_model", self.base_model
        for index, model in enumerate(self.models or ()):
            yield f"models[{index}].model", model.model
        for index, part in enumerate(self.slices or ()):
            if part.base_model:
                yield f"slices[{index}].base_model", part.base_model
            for number, source in enumerate(part.sources):
                yield f"slices[{index}].sources[{number}].model", source.model

    def filters(self) -> list[str]:
        """Every text that some parameter looks for in names, in the order of the file."""
        scopes = [model.parameters for model in self.models or ()]
        for part in self.slices or ():
            scopes += [*(source.parameters for source in part.sources), part.parameters]
        rules = [rule for scope in [*scopes, self.parameters] for setting in scope.values() for rule in setting]
        return list(dict.fromkeys(rule.filter for rule in rules if rule.filter and rule.filter != "*"))

    def stored(self) -> str | None:
        """What the result is stored in: `out_dtype`, else `dtype`, else None (as the base is).

        Raises:
            InvalidRecipe: a name that is no floating-point type, or one that results are not stored in.
        """
        names = {"dtype": self.dtype, "out_dtype": self.out_dtype}
        said = {key: name.removeprefix("torch.") for key, name in names.items() if name}
        for key, name in said.items():
            last = key == "out_dtype" or "out_dtype" not in said
            if name not in DTYPES and (last or name != "float64"):  # mergekit may compute in more than we do
                raise InvalidRecipe(key, name, "is not what results are stored in", f"use one of {', '.join(DTYPES)}")
        return said.get("out_dtype", said.get("dtype"))


# Keys that mergekit has and this reader has not: what to do instead.
_REMEDIES = {
    "modules": "write the models or slices of its one module at the top",
    "tokens": "leave it out: rows of tokens that a model lacks are filled by rule",
    "pad_to_multiple_of": "leave it out: the base's number of rows is kept",
    "chat_template": "leave it out, and put the template into the base model's folder",
}


def parse(content: Any) -> Document:
    """The configuration in parsed YAML.

    Raises:
        InvalidRecipe: a key that is not known, a value of another kind, or none or both of `models` and `slices`.
    """
    if not isinstance(content, dict):
        raise InvalidRecipe("config", type(content).__name__, "is no mapping of keys", "see docs/mergekit.md")
    try:
        return Document.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        parts = list(first["loc"])
        unknown = str(parts[-1]) if first["type"] == "extra_forbidden" else ""
        if "parameters" in parts:  # beyond lie the kinds of value that were tried
            parts = parts[: parts.index("parameters") + 2] + ([unknown] if unknown and len(parts) > 3 else [])
        key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)[1:] or "config"
        value = None if first["type"] == "missing" else first["input"]
        last = str(parts[-1]) if parts else ""
        if first["type"] == "extra_forbidden":
            problem, remedy = "is not read from a mergekit file", _REMEDIES.get(last, "leave it out")
        else:
            problem, remedy = f"is not valid ({first['msg']})", _REMEDIES.get(last, "see docs/mergekit.md")
        raise InvalidRecipe(key, value, problem, remedy) from error
