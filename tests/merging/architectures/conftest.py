"""Each architecture's base and two fine-tunes, saved by transformers once for all tests of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from merging.models import ModelSet
from merging.recipe import SCHEMA, GroupMerge, Recipe
from tests.merging.architectures.families import Family

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Saved:
    """The models of one family, in memory and on disk.

    Attributes:
        family: their architecture.
        base: the base in memory.
        folder: holds the folders `base`, `x` and `y`.
        models: base, x and y, opened.
    """

    family: Family
    base: Any
    folder: Path
    models: ModelSet

    def recipe(self, method: str, weights: Mapping[str, float], **parameters: float) -> Recipe:
        """The same merge for all layers."""
        group = GroupMerge(
            layers=(0, self.models.layout.layer_count), method=method, weights=dict(weights), parameters=parameters
        )
        places = {name: str(self.folder / name) for name in self.models.names}
        return Recipe(schema_=SCHEMA, base=str(self.folder / "base"), experts=places, groups=(group,))


def save(
    family: Family, folder: Path, *, dtype: str = "float32", shard: str = "1GB", tied: bool | None = None
) -> Saved:
    """Writes a base and two fine-tunes, noise of a fifth of a weight's usual size, and opens them."""
    base = family.build(tied).to(DTYPES[dtype])
    base.save_pretrained(folder / "base", max_shard_size=shard)
    before = [parameter.detach().clone() for parameter in base.parameters()]
    for seed, name in enumerate("xy"):
        add_noise(base, seed)
        base.save_pretrained(folder / name, max_shard_size=shard)
        with torch.no_grad():
            for parameter, kept in zip(base.parameters(), before, strict=True):
                parameter.copy_(kept)
    return Saved(family, base, folder, ModelSet.open(folder / "base", {name: folder / name for name in "xy"}))


@torch.no_grad()
def add_noise(model: Any, seed: int) -> None:
    """Adds noise as large as the weights."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_((torch.randn(parameter.shape, generator=generator) * 0.02).to(parameter.dtype))


@pytest.fixture(scope="session")
def saved(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    """The family that the test names, in many shards of float32."""
    family: Family = request.param
    return save(family, tmp_path_factory.mktemp(family.name), shard="6KB")
