"""Recipes that stack, repeat or leave out layers: which need a live model of their own, and that model."""

import gc
import json
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from evaluation.depth import live_of_depth
from evaluation.scorer import Scorer
from merging.arrangement import arrange
from merging.catalog import CATALOG
from merging.errors import InvalidRecipe
from merging.models import ModelSet
from merging.recipe import Recipe
from merging.resident import ResidentModel
from merging.resultconfig import result_config


@dataclass
class Held:
    """A live model, and what scores it, by study."""

    live: Any
    scorers: dict[int, Scorer] = field(default_factory=dict)


class Stacked:
    """Live models for such recipes. One is kept: the last, beside the one of the models' own layers.

    Args:
        live: the live model of the models' own layers.
    """

    def __init__(self, live: Any) -> None:
        self._live = live
        self._config = ""
        self._tensors: dict[str, torch.Tensor] = {}
        self.held: Held | None = None

    def write(self, recipe: Recipe, writer: ResidentModel) -> Held:
        """The live model that holds the recipe's candidate now.

        Raises:
            InvalidRecipe: there is no such model, or one of its methods looks at documents, which is done in the
                models' own layers.
            NonFiniteCandidate: a merged tensor has NaN or infinity.
        """
        for merge in (*recipe.groups, *recipe.overrides):
            if CATALOG[merge.method].artefacts:
                problem = "looks at documents through the models' layers, and the result has others"
                raise InvalidRecipe("method", merge.method, problem, "use a method that measures nothing, or no slices")
        models = writer.models
        arrangement = arrange(recipe, models.layout, models.names)
        config = result_config(models, None, arrangement)
        if (key := json.dumps(config, sort_keys=True)) != self._config or self.held is None:
            self._drop()
            shapes = {name: models.shape(part.base) for name, part in arrangement.parts.items()}
            made, self._tensors = live_of_depth(self._live, config, shapes)
            self.held, self._config = Held(made), key
        writer.write(recipe, self._tensors)
        return self.held

    def _drop(self) -> None:
        """Before another is made: three models may not fit."""
        self._tensors, self.held, self._config = {}, None, ""
        gc.collect()  # a model and its hooks refer to each other


def is_restacked(recipe: Recipe, models: ModelSet) -> bool:
    """Whether the candidate does not fit the live model of the models' own layers.

    Layers that only change places among their like fit it.

    Raises:
        InvalidRecipe: its slices do not fit these models.
    """
    if not recipe.slices:
        return False
    arrangement = arrange(recipe, models.layout, models.names)
    own = replace(arrangement, origins=tuple(range(models.layout.layer_count)))
    return result_config(models, None, arrangement) != result_config(models, None, own)
