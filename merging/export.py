"""Writes a merge to disk as an ordinary Hugging Face folder, one tensor at a time.

The folder appears whole or not at all (`merging.folder`).
"""

from collections.abc import Mapping
from pathlib import Path

from merging.arrangement import arrange
from merging.checkpoint import SINGLE
from merging.configfile import as_bytes
from merging.engine import Engine, Plan
from merging.folder import appearing, write_file
from merging.models import ModelSet
from merging.recipe import Recipe, relocated
from merging.resultconfig import result_config
from merging.weightfiles import Shape, write_weights


def export(recipe: Recipe, models: ModelSet, to: Path, extra: Mapping[str, bytes] | None = None) -> None:
    """Writes the merge as a folder that `from_pretrained` loads.

    Weights are laid out as the base's: the same files, the same tensors in each. Beside them stand config.json,
    the tokenizer that the recipe names with its companions, and recipe.json. Memory: a few times the largest tensor.

    Args:
        recipe: the merge.
        models: its models, opened.
        to: the folder to create; its parent must exist.
        extra: more files by plain name, e.g. a model card; they win over the base's.

    Raises:
        InvalidRecipe: the recipe is for other models.
        NonFiniteCandidate: a merged tensor has NaN or infinity.
        OutputError: `to` exists or cannot be written. Nothing is left behind, whatever is raised.
    """
    extra = dict(extra or {})
    for name in extra:
        if not name or Path(name).name != name:
            raise ValueError(f"extra file {name!r} is not a plain file name")
    with appearing(to) as folder:
        engine = Engine(models)
        plans = engine.plans(recipe)
        _write_weights(engine, plans, folder)
        config = result_config(models, recipe.dtype, arrange(recipe, models.layout, models.names))
        texts = {"config.json": as_bytes(config), "recipe.json": relocated(recipe, to.absolute()).to_json().encode()}
        for name, content in ({**models.companion_files()} | texts | extra).items():
            (folder / name).parent.mkdir(exist_ok=True)
            write_file(folder / name, content)


def _write_weights(engine: Engine, plans: Mapping[str, Plan], folder: Path) -> None:
    base, shapes = engine.models.base, {name: _shape(engine, plan) for name, plan in plans.items()}
    files = []
    for file, held in base.files():
        sources = {entry.name: place for place, entry in enumerate(held)}
        of_file = [(sources[p.part.base], *shapes[n]) for n, p in plans.items() if p.part.base in sources]
        # wide numbers first; then as the base's file has them
        ordered = sorted(of_file, key=lambda row: (-row[2].itemsize, row[0], row[1]))
        files.append((file, [row[1:] for row in ordered]))
    write_weights(folder, files, lambda name, out: engine.merge(plans[name], out), indexed=SINGLE not in base.shards)


def _shape(engine: Engine, plan: Plan) -> Shape:
    """Name, dtype and shape of one tensor of the result."""
    return plan.part.name, engine.stored(plan), engine.models.shape(plan.part.base)
