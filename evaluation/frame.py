"""A folder that the live model of some models' candidates is loaded from."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from merging.export import export
from merging.models import ModelSet
from merging.recipe import SCHEMA, GroupMerge, Recipe


@contextmanager
def frame(models: ModelSet) -> Iterator[Path]:
    """A folder whose model has the candidates' shapes and tokenizer: the base's, else that of any merge."""
    if models.tokenizer == "base":
        yield models.base.path
        return
    whole = GroupMerge(layers=(0, models.layout.layer_count), method="uniform")
    places = {name: str(expert.path) for name, expert in models.experts.items()}
    recipe = Recipe(
        schema_=SCHEMA,
        base=str(models.base.path),
        experts=places,
        tokenizer=models.tokenizer,
        compress=models.compression,
        groups=(whole,),
    )
    with TemporaryDirectory(prefix="mergesearch-") as folder:
        export(recipe, models, Path(folder) / "frame")
        yield Path(folder) / "frame"
