"""Experts on the disk, recipes that look at data, and a workshop for them."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from evaluation.artefacts.workshop import Workshop
from evaluation.live import live_tensors, load_live
from merging.artefacts.shelf import MANIFEST, TENSORS
from merging.checkpoint import SINGLE
from merging.export import export
from merging.models import ModelSet
from merging.recipe import SCHEMA, GroupMerge, Recipe
from merging.resident import ResidentModel

EXPERTS = ("left", "right")
SUITE_TASKS = ("tiny_generate", "tiny_text")
LAYERS = 2
DOCUMENTS = {"documents": 4}


def write_expert(base: Path, to: Path, seed: int) -> Path:
    """A copy of the model with noise of a tenth of each tensor's size."""
    shutil.copytree(base, to)
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for name, tensor in load_file(base / SINGLE).items():
        noise = torch.randn(tensor.shape, generator=generator)
        found[name] = tensor + 0.1 * tensor.std() * noise
    save_file(found, to / SINGLE, {"format": "pt"})
    return to


@dataclass(frozen=True)
class Shop:
    """A workshop and what it works on."""

    models: ModelSet
    live: Any
    resident: ResidentModel
    workshop: Workshop

    @contextmanager
    def passes(self, tell: Callable[[torch.Tensor], None]) -> Iterator[None]:
        """Tells the token ids of every pass of the live model."""

        def look(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
            tell(kwargs["input_ids"])

        handle = self.live.base_model.register_forward_pre_hook(look, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the live model's tensors."""
        return {name: tensor.clone() for name, tensor in self.live.state_dict().items()}


def open_shop(root: Path, experts: tuple[str, ...] = EXPERTS) -> Shop:
    """A workshop on the base and the experts of a folder; nothing is shared with another one."""
    models = ModelSet.open(root / "base", {name: root / name for name in experts})
    live, tokenizer = load_live(root / "base", "cpu", "float32")
    tensors = live_tensors(live, models.base.names)
    resident = ResidentModel(models, tensors)
    return Shop(models, live, resident, Workshop(models, resident, live, tokenizer, tensors))


def recipe_of(models: ModelSet, suite: str, *methods: str, **parameters: Any) -> Recipe:
    """A recipe with one method for all layers, or with one for each of the two."""
    weights = {name: 0.4 + 0.2 * i for i, name in enumerate(models.names)}
    spans = [(0, LAYERS)] if len(methods) == 1 else [(0, 1), (1, LAYERS)]
    groups = tuple(
        GroupMerge(
            layers=span, method=method, weights=weights, parameters={} if method == "linear" else DOCUMENTS | parameters
        )
        for span, method in zip(spans, methods, strict=True)
    )
    places = {name: str(expert.path) for name, expert in models.experts.items()}
    return Recipe(schema_=SCHEMA, base=str(models.base.path), experts=places, groups=groups, suite=suite)


def artefacts_in(folder: Path) -> list[str]:
    """The kinds of all artefacts there."""
    return sorted(path.parent.name.rpartition("-")[0] for path in folder.glob(f"*/{MANIFEST}"))


def assert_exported(shop: Shop, recipe: Recipe, to: Path) -> None:
    """The resident builds what an export by others writes, bit by bit."""
    shop.resident.apply(recipe)
    export(recipe, shop.models, to)
    live = shop.weights()
    for name, tensor in load_file(to / SINGLE).items():
        assert torch.equal(live[name], tensor), name


def once_begun(artefacts: Path, act: Callable[[], None]) -> Callable[[], None]:
    """A beat that acts in the middle of a measurement: when a part of its artefact was written."""

    def beat() -> None:
        if any(path.stat().st_size for path in artefacts.glob(f".*.part/{TENSORS}")):
            act()

    return beat
