"""`mergesearch merge`: one recipe file straight to a checkpoint."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import yaml

from api.compressing import write_as
from api.forms import FULL
from merging.checkpoint import Checkpoint
from merging.errors import InvalidModel, InvalidRecipe
from merging.layers import Layout, layout
from merging.mergekit import read, write
from merging.mergekit.document import Document, parse
from merging.models import ModelSet
from merging.recipe import Recipe, parse_recipe, resolved
from search.yamlfile import read_yaml

_MERGEKIT = {"merge_method", "models", "slices", "modules", "base_model"}  # keys of its files, never of ours


def load_recipe(path: Path, models: Layout | None = None) -> Recipe:
    """The recipe in a JSON or YAML file, ours or a mergekit configuration; its folders made absolute (from the file's).

    Args:
        models: of the models that it is of, where these are known: then nothing but the file is read. Else the folders
            that a mergekit configuration names are opened.

    Raises:
        InvalidRecipe: unreadable, or anything in it is wrong.
    """
    try:
        content = read_yaml(path)
    except OSError as error:
        raise InvalidRecipe("recipe file", str(path), f"cannot be read ({error.strerror})", "check the path") from error
    except ValueError as error:
        raise InvalidRecipe("recipe file", str(path), f"is not YAML ({error})", "mend that line") from error
    root = path.resolve().parent
    if isinstance(content, dict) and "schema" not in content and _MERGEKIT & content.keys():
        if models is not None:
            return read(content, root, lambda folder: models)
        _check_folders(parse(content), root)
        return read(content, root, layout_of)
    return resolved(parse_recipe(content), root)


def _check_folders(document: Document, root: Path) -> None:
    """Every model that the configuration names lies here."""
    for key, reference in document.references():
        if not (root / reference).is_dir():
            remedy = "download the model and name its folder; hub ids are not read"
            raise InvalidModel(key, reference, "is no folder here", remedy)


def layout_of(folder: Path) -> Layout:
    """What the tensors of a model in a folder are."""
    opened = Checkpoint(folder, "base_model")
    return layout(opened.names, opened.config)


def as_mergekit(recipe: Recipe) -> str:
    """The recipe as a mergekit configuration, in YAML.

    Raises:
        InvalidRecipe: mergekit cannot express it.
    """
    opened = Checkpoint(Path(recipe.base), "base")
    kinds = Counter(e.dtype for e in map(opened.entry, opened.names) if e.dtype.is_floating_point)
    stored = str(kinds.most_common(1)[0][0]).removeprefix("torch.")  # mergekit computes in float32 where this is known
    return yaml.safe_dump(write(recipe, layout_of, stored), sort_keys=False)


def build_file(path: Path, to: Path, form: str = FULL, settings: Mapping[str, float] | None = None) -> str:
    """Merge what the recipe file says into the new folder `to`, and say what was written.

    Args:
        form, settings: as of `write_as`.

    Raises:
        InvalidInput: the recipe, a model or the folder cannot work; nothing is left behind.
        NonFiniteCandidate: the merge gives NaN or infinity.
    """
    recipe = load_recipe(path)
    experts = {name: Path(place) for name, place in recipe.experts.items()}
    keys = [f"experts.{name}" for name in experts]
    models = ModelSet.open(Path(recipe.base), experts, base_key="base", expert_keys=keys, tokenizer=recipe.tokenizer)
    return write_as(form, recipe, models.compressed(recipe.compress), to, settings or {})
