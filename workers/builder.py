"""Builds a study's candidates in one live model, from its experts as they are and as a codec keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evaluation.artefacts.workshop import Workshop
from evaluation.suite import Suite
from merging.artefacts.request import Request
from merging.artefacts.shelf import MissingArtefact
from merging.compression import Compression
from merging.models import ModelSet
from merging.recipe import Recipe
from merging.resident import ResidentModel
from workers.benches import Measuring
from workers.host import memory
from workers.stacked import Held, Stacked, is_restacked


@dataclass(frozen=True)
class _Form:
    """The models in one form: what writes their merges into the live model, and what measures them."""

    writer: ResidentModel
    workshop: Workshop


class Builder:
    """Writes candidates into a live model. Where the experts are kept compressed, they are read from their files for
    the few recipes that take them as they are.

    Args:
        models: base and experts as they are.
        live, tokenizer: the live model.
        tensors: its tensors by checkpoint name.
        packed: what the experts are kept by; None: as they are.
        device_bytes: on a GPU, how much of its memory base and experts may take, and never more than half of what is
            free; None: that much.
        known: fingerprints of the packed models.

    Attributes:
        held: the live model that holds what was built last: `own`, the one given, or that of `stacked` layers.
    """

    def __init__(
        self,
        models: ModelSet,
        live: Any,
        tokenizer: Any,
        tensors: Mapping[str, Tensor],
        packed: Compression | None,
        device_bytes: int | None,
        known: Mapping[str, str] | None = None,
    ) -> None:
        used, total = memory()
        room = max(1 << 30, (total - used) // 8)  # for masks and decompositions that candidates share
        devices = {tensor.device for tensor in tensors.values() if tensor.is_cuda}
        if devices:  # they lie there
            room = min(room, sum(torch.cuda.mem_get_info(device)[0] for device in devices) // 8)

        def form(writer: ResidentModel) -> _Form:
            return _Form(writer, Workshop(writer.models, writer, live, tokenizer, tensors))

        kept = ResidentModel(models.compressed(packed, known), tensors, memo_bytes=room, device_bytes=device_bytes)
        self._kept = self._whole = form(kept)
        if packed is not None:
            self._whole = form(ResidentModel(models, tensors, memo_bytes=0, streamed=True))
        self._holds: _Form | None = None
        self.own = self.held = Held(live)
        self.stacked = Stacked(live)
        self._unseen = False  # the live model may hold what nobody was told of

    def build(self, recipe: Recipe, suite: Suite, on_measuring: Measuring) -> bool:
        """Write the candidate into the live model; whether anything there changed since the last that was built.

        What its methods want to know of the suite's search documents is measured first.
        """
        self.held = self.own  # nothing else keeps a model of other layers, which may have to make room
        if is_restacked(recipe, self._whole.writer.models):
            form = self._kept if recipe.compress else self._whole
            self.held = self.stacked.write(recipe, form.writer)
            return True
        try:
            self.measure(recipe, suite, on_measuring)
            built = self._form(recipe).writer.apply(recipe)
        except MissingArtefact:  # others removed it meanwhile: only the latest are kept
            self.measure(recipe, suite, on_measuring)
            built = self._form(recipe).writer.apply(recipe)
        unseen, self._unseen = self._unseen, False
        return bool(built.tensors) or unseen

    def measure(self, recipe: Recipe, suite: Suite, on_measuring: Measuring) -> None:
        """Measure what the recipe's methods want to know of the suite's search documents, if nobody has.

        It is measured in the live model, which then holds something else.
        """
        form = self._form(recipe)
        missing, done = form.workshop.missing(recipe), 0

        def begun(request: Request, measurement: object) -> None:
            nonlocal done  # others may have measured some meanwhile, or removed some
            done = missing.index(request) if request in missing else done

        self._unseen = self._unseen or bool(missing)
        form.workshop.ensure(recipe, suite, lambda: on_measuring(done, len(missing)), begun)

    def _form(self, recipe: Recipe) -> _Form:
        """The form that the recipe takes the experts in; what the other wrote into the live model is forgotten."""
        form = self._kept if recipe.compress else self._whole
        if self._holds is not form:
            self._holds = form
            form.writer.forget()
        return form
