"""A live model whose parameters are overwritten with one candidate after another; nothing touches the disk."""

import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from merging.artefacts.shelf import Shelf
from merging.checkpoint import is_derived
from merging.engine import Engine
from merging.errors import InvalidModel, InvalidRecipe
from merging.layers import Place
from merging.models import ModelSet
from merging.placement import stack_source
from merging.recipe import Recipe


@dataclass(frozen=True)
class Build:
    """What one `apply` did.

    Attributes:
        seconds: wall time.
        tensors: how many tensors were rebuilt.
        groups: how many of the recipe's groups they lie in.
    """

    seconds: float
    tensors: int
    groups: int


class ResidentModel:
    """Writes candidates into a live model, in place, and only where they differ from the last one.

    After `apply(recipe)` every parameter holds exactly what `export(recipe, …)` would store, in the live model's own
    dtype. On the CPU no copy of the models is held beside the live one.

    Args:
        models: base and experts.
        live: the live tensors by checkpoint tensor name, as `evaluation.live.live_tensors` finds them; any device and
            floating dtype. Several names of one tied tensor may be given.
        memo_bytes: how much prepared state (masks, thresholds) to keep between candidates.
        device_bytes: on a GPU, how much of its memory base and experts may take, and never more than half of what is
            free; None: that much.
        streamed: base and experts are read from their files at each build, and take no memory between builds.

    Raises:
        InvalidModel: live model and checkpoint do not have the same tensors.
    """

    def __init__(
        self,
        models: ModelSet,
        live: Mapping[str, Tensor],
        *,
        memo_bytes: int = 1 << 30,
        device_bytes: int | None = None,
        streamed: bool = False,
    ) -> None:
        _check_live(models, live)
        self.models = models
        self._live = {name: live[name].detach() for name in models.base.names}
        devices = {name: tensor.device for name, tensor in self._live.items()}
        self._engine = Engine(models, stack_source(models, devices, device_bytes, streamed=streamed), memo_bytes)
        self._holds: dict[str, Hashable] = {}  # the effect each tensor was last built with; absent: unknown

    @property
    def shelf(self) -> Shelf:
        """Where the artefacts that merges read are found."""
        return self._engine.shelf

    def forget(self) -> None:
        """Somebody else wrote into the live model: the next candidate is built in full."""
        self._holds.clear()

    def write(self, recipe: Recipe, tensors: Mapping[str, Tensor]) -> None:
        """Writes the recipe's merge, all of it, into the tensors of another live model, by the result's names.

        Raises:
            InvalidRecipe: the recipe is for other models, or its result has other tensors.
            NonFiniteCandidate: a merged tensor has NaN or infinity.
        """
        plans = self._engine.plans(recipe)
        if plans.keys() != tensors.keys():
            name = min(plans.keys() ^ tensors.keys())
            problem = f"give the result other tensors than the live model has ({name})"
            raise InvalidRecipe("slices", len(recipe.slices), problem, "export the recipe, and evaluate the checkpoint")
        for name, plan in plans.items():
            self._engine.merge(plan, tensors[name].detach())
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()

    def apply(self, recipe: Recipe, where: Callable[[Place], bool] | None = None) -> Build:
        """Makes the live model the recipe's merge.

        Safe against failure: whatever was interrupted is rebuilt by the next call.

        Args:
            where: only tensors of these places; None: all.

        Raises:
            InvalidRecipe: the recipe is for other models, or its slices for a model of other depth.
            NonFiniteCandidate: a merged tensor has NaN or infinity.
        """
        start = time.perf_counter()
        stale, plans = [], self._engine.plans(recipe)
        if plans.keys() != self._live.keys():
            problem = "give the result other layers than the live model has"
            raise InvalidRecipe("slices", len(recipe.slices), problem, "export the recipe, and evaluate the checkpoint")
        for name, plan in plans.items():
            if self._holds.get(name) != plan.effect and (where is None or where(plan.part.place)):
                stale.append((name, plan))
        for name, plan in stale:
            self._holds.pop(name, None)
            self._engine.merge(plan, self._live[name])
            self._holds[name] = plan.effect
        if any(tensor.is_cuda for tensor in self._live.values()):
            torch.cuda.synchronize()
        return Build(time.perf_counter() - start, len(stale), len({id(plan.merge) for _, plan in stale}))


def _check_live(models: ModelSet, live: Mapping[str, Tensor]) -> None:
    filled: dict[tuple[torch.device, int], str] = {}
    for name in models.base.names:
        shape = models.shape(name)
        if name not in live:
            raise _misfit(models, f"has the tensor {name}, which the live model lacks")
        if tuple(live[name].shape) != shape:
            raise _misfit(models, f"has {name} of shape {list(shape)}, the live model {list(live[name].shape)}")
        other = filled.setdefault(_place(live[name]), name)
        if other != name and live[name].numel():
            problem = f"has both {other} and {name}, which the live model ties"
            raise _misfit(models, problem, "set tie_word_embeddings to true in its config.json and save it again")
    for name, tensor in live.items():
        known = name in models.base.names or _place(tensor) in filled or is_derived(name, tuple(tensor.shape))
        if not known and tensor.is_floating_point():
            raise _misfit(models, f"lacks the live model's parameter {name}")


def _place(tensor: Tensor) -> tuple[torch.device, int]:
    return tensor.device, tensor.data_ptr()


def _misfit(models: ModelSet, problem: str, remedy: str = "") -> InvalidModel:
    remedy = remedy or "build the live model from the base's own config and class, without quantisation"
    return InvalidModel(models.base.key, str(models.base.path), problem, remedy)
