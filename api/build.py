"""`mergesearch merge`: one recipe file straight to a checkpoint."""

from pathlib import Path

import yaml

from merging.errors import InvalidRecipe
from merging.export import export
from merging.models import ModelSet
from merging.recipe import Recipe, parse_recipe, resolved


def load_recipe(path: Path) -> Recipe:
    """The recipe in a JSON or YAML file, its model folders made absolute (relative to the file).

    Raises:
        InvalidRecipe: unreadable, or anything in it is wrong.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRecipe("recipe file", str(path), f"cannot be read ({error.strerror})", "check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise InvalidRecipe("recipe file", str(path), f"is not YAML ({problem})", "mend that line") from error
    return resolved(parse_recipe(content), path.resolve().parent)


def build_file(path: Path, to: Path) -> None:
    """Merge what the recipe file says into the new folder `to`.

    Raises:
        InvalidInput: the recipe, a model or the folder cannot work; nothing is left behind.
        NonFiniteCandidate: the merge gives NaN or infinity.
    """
    recipe = load_recipe(path)
    experts = {name: Path(place) for name, place in recipe.experts.items()}
    keys = [f"experts.{name}" for name in experts]
    models = ModelSet.open(Path(recipe.base), experts, base_key="base", expert_keys=keys)
    export(recipe, models, to.absolute())
