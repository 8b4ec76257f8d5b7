"""Which model of a mergekit configuration is the base, which are experts, and what these are called. No torch here."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from merging.errors import InvalidRecipe
from merging.mergekit.document import Document, OutputSlice, Source
from merging.mergekit.names import Foreign


@dataclass(frozen=True)
class Cast:
    """The models, by the text that names them in the file.

    Attributes:
        base: the recipe's base: the origin of deltas, or where a method has none the donor of config and tokenizer.
        origin: whether the base is the origin of deltas; if not, it may be an expert as well.
        experts: the expert's name of each model, in the order of the file.
        slices: the result's layers; a file of whole `models` is one slice.
    """

    base: str
    origin: bool
    experts: Mapping[str, str]
    slices: tuple[OutputSlice, ...]

    def expert(self, reference: str) -> str | None:
        """The expert's name of a model; None for the origin of deltas."""
        return self.experts.get(reference)


def cast(document: Document, row: Foreign, layer_count: int) -> Cast:
    """The models of a configuration.

    Args:
        layer_count: how many layers a whole model has.

    Raises:
        InvalidRecipe: the method's base is missing, or changes from slice to slice, or a slice has too few models.
    """
    origin = _origin(document, row)
    slices = document.slices or (_whole(document, layer_count),)
    for index, part in enumerate(slices):
        key = "models" if document.models else f"slices[{index}].sources"
        _check_sources(part, origin, part.base_model or document.base_model, row, key)
    base = origin or donor(document)
    found = [source.model for part in slices for source in part.sources]
    return Cast(base, origin is not None, _named(model for model in found if model != origin), slices)


def donor(document: Document) -> str:
    """The model that config, tokenizer and the list of tensors come from."""
    first = document.models[0].model if document.models else (document.slices or ())[0].sources[0].model
    bases = [part.base_model for part in document.slices or () if part.base_model]
    return document.base_model or (bases[0] if bases else first)


def _origin(document: Document, row: Foreign) -> str | None:
    """The model that deltas are taken from, if the method takes any."""
    if row.base in ("input", "end"):
        return None
    bases = {part.base_model or document.base_model for part in document.slices or ()} or {document.base_model}
    if len(bases) > 1:
        problem = "changes from slice to slice, but a recipe has one base"
        raise InvalidRecipe("slices", sorted(map(str, bases)), problem, "merge each part by itself, then stack them")
    origin = bases.pop()
    if origin is None and row.base == "required":
        raise InvalidRecipe("base_model", None, f"is missing, and {row.name} needs it", "name the common ancestor")
    return origin


def _whole(document: Document, layer_count: int) -> OutputSlice:
    """Whole models as one slice; a base that is not among them is the last."""
    span = (0, layer_count)
    sources = [Source(model=m.model, layer_range=span, parameters=m.parameters) for m in document.models or ()]
    if document.base_model and document.base_model not in [source.model for source in sources]:
        sources.append(Source(model=document.base_model, layer_range=span))
    return OutputSlice(sources=tuple(sources))


def _check_sources(part: OutputSlice, origin: str | None, base: str | None, row: Foreign, key: str) -> None:
    models = [source.model for source in part.sources]
    twice = next((model for model in models if models.count(model) > 1), None)
    if twice is not None:
        raise InvalidRecipe(key, twice, "is listed twice", "list each model once and add up its weights")
    if (origin is not None or row.base == "end") and base not in models:
        raise InvalidRecipe(key, models, f"are merged by {row.name} without their base", "add base_model to them")
    fewest, most = row.inputs
    count = len(models) - (origin is not None)
    if not fewest <= count <= most:
        wants = str(most) if fewest == most else f"at least {fewest}"
        problem = f"are {count} models beside the base, and {row.name} takes {wants}"
        raise InvalidRecipe(key, models, problem, "choose another method")
    first, *others = part.sources
    for source in others:
        if _length(source) != _length(first):
            problem = f"is not as long as {list(first.layer_range)}"
            raise InvalidRecipe(key, list(source.layer_range), problem, "take as many layers of each model")


def _length(source: Source) -> int:
    return source.layer_range[1] - source.layer_range[0]


def _named(models: Iterable[str]) -> Mapping[str, str]:
    """A name for each model: the last part of its path, with a number where that is taken."""
    names: dict[str, str] = {}
    taken = {"base", "union"}  # these words mean something else where a recipe chooses its tokenizer
    for model in models:
        if model in names:
            continue
        stem = PurePath(model).name or "model"
        name, number = stem, 2
        while name in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        names[model] = name
    return names
