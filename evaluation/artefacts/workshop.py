"""Measures what recipes read and nobody has measured yet, on the live model that candidates are written into.

An artefact is written as it is measured and takes its name at the end (`merging.artefacts.shelf`): a process that is
killed leaves nothing, and the next one begins again.
"""

import logging
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from evaluation.artefacts.coefficients import measure_coefficients
from evaluation.artefacts.common import measure_common
from evaluation.artefacts.contract import Beat, Joint, Measure, Measurement, Subject, alone
from evaluation.artefacts.fisher import measure_fisher
from evaluation.artefacts.inputs import measure_inputs
from evaluation.artefacts.likelihoods import ANSWERS, measure_likelihoods, own
from evaluation.artefacts.loss import measure_loss
from evaluation.artefacts.masks import measure_masks
from evaluation.artefacts.merged import measure_merged
from evaluation.artefacts.propagated import measure_propagated
from evaluation.artefacts.temperature import measure_temperature
from evaluation.artefacts.texts import Text, read_texts
from evaluation.lm.budget import Budget
from evaluation.lm.resident import ResidentLM
from evaluation.suite import Suite
from merging.artefacts.request import OF_DELTAS, OF_RECIPE, Request, likelihoods_of, requests
from merging.artefacts.shelf import TENSORS, finish
from merging.catalog.declare import ArtefactKind
from merging.errors import InvalidRecipe
from merging.models import ModelSet
from merging.recipe import Recipe
from merging.resident import ResidentModel
from merging.weightfiles import write_weights

Begun = Callable[[Request, Measurement], None]
log = logging.getLogger(__name__)
_SHARE = 0.4  # of the free memory that sums may take: activations and gradients lie beside them
_MEASURES: Mapping[ArtefactKind, Measure] = {
    "coefficients": measure_coefficients,
    "common inputs": measure_common,
    "fisher": measure_fisher,
    "inputs": measure_inputs,
    "likelihoods": measure_likelihoods,
    "loss": measure_loss,
    "masks": measure_masks,
    "merged inputs": measure_merged,
    "propagated inputs": measure_propagated,
    "temperature": measure_temperature,
}


def nobody(*what: object) -> None:
    """For what nobody wants to hear."""


class Workshop:
    """One set of models and the live model that each of them is written into to be measured.

    Args:
        models: base and experts.
        resident: writes them into `live`.
        live: the live model.
        tensors: its tensors by checkpoint name.
    """

    def __init__(
        self, models: ModelSet, resident: ResidentModel, live: Any, tokenizer: Any, tensors: Mapping[str, Tensor]
    ) -> None:
        self._models, self._resident, self._live = models, resident, live
        self._tensors = {name: tensors[name] for name in models.base.names}
        self._lm = ResidentLM(live, tokenizer, None)
        self.shelf = resident.shelf

    def ensure(self, recipe: Recipe, suite: Suite, beat: Beat = nobody, begun: Begun = nobody) -> list[Request]:
        """Measures what the recipe reads, where it was not measured before; what the live model holds then is undone.

        Args:
            beat: called between passes, and while another process measures the same; what it raises ends the measuring.
            begun: told of each measurement before it runs.

        Returns:
            What was measured now.

        Raises:
            InvalidStudy: the suite has nothing to measure on.
            InvalidRecipe: the recipe looks at another suite, or cannot be measured.
            OutputError: the artefact cannot be written anywhere.
            MemoryError: not even one sequence fits.
        """
        wanted = self.missing(recipe)
        if not wanted:
            return []
        read = suite.learned_on(recipe.suite)
        if read is None:
            problem = f"is not the suite at hand, {suite.tuning_digest}"
            remedy = "name it in the recipe, or take its study"
            raise InvalidRecipe("suite", recipe.suite, problem, remedy)
        return [request for request in wanted if self._make(request, recipe, read, (beat, begun))]

    def missing(self, recipe: Recipe) -> list[Request]:
        """What the recipe reads and was not measured before, in the order of measuring."""
        wanted: dict[str, Request] = {}  # experts of equal content have one artefact
        for request in requests(recipe, self._models):
            if self.shelf.find(request) is None:
                wanted.setdefault(request.digest, request)
        # what hangs on a whole recipe comes last: it builds all of the recipe
        return sorted(wanted.values(), key=lambda request: request.kind in OF_RECIPE)

    def _make(self, request: Request, recipe: Recipe, suite: Suite, told: tuple[Beat, Begun]) -> bool:
        """Measures one; False if another process was faster."""
        with self.shelf.making(request, told[0]) as folder:
            if folder is None:
                return False
            started = time.perf_counter()
            if request.expert:
                self._resident.apply(alone(self._models, request.expert))
            measurement = _MEASURES[request.kind](self._subject(request, recipe, suite, told[0]), request)
            told[1](request, measurement)
            about = {"action": "artefact.begun", "kind": request.kind, "expert": request.expert}
            log.info("measuring", extra={**about, "bytes": measurement.need, "rounds": measurement.rounds})
            _write(measurement, folder)
            seconds = round(time.perf_counter() - started, 3)
            cost = {"seconds": seconds, "bytes": measurement.need, "rounds": measurement.rounds}
            finish(folder, request, {**measurement.figures(), **cost})
            log.info("measured", extra={**about, "action": "artefact.done", "seconds": seconds})
            return True

    def texts(self, suite: Suite, request: Request, expert: str) -> list[Text]:
        """What an expert is measured on."""
        documents = request.setting("documents")
        every = read_texts(suite, documents, self._lm.pair, self._lm.max_length)
        if dict(request.settings).get("texts") != "own":
            return every
        wanted = likelihoods_of(self._models, request.companions, request.suite, documents)
        answers = [self.shelf.require(one).tensor(ANSWERS) for one in wanted]
        return own(every, [each for each in answers if each is not None], self._models.names.index(expert))

    def _subject(self, request: Request, recipe: Recipe, suite: Suite, beat: Beat) -> Subject:
        device, joint = self._live.device, None
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
        if not request.expert or request.kind in OF_DELTAS:
            each = {name: self.texts(suite, request, name) for name in self._models.names}
            joint = Joint(self._models, recipe, self._resident, each)
        texts = self.texts(suite, request, request.expert or self._models.names[0])
        budget = Budget(self._live, device, None)
        return Subject(self._live, self._tensors, texts, budget, int(free * _SHARE), beat, joint)


def _write(measurement: Measurement, folder: Path) -> None:
    values = measurement.values()
    filled = ((name, value) for name, value in values if value.numel())  # an empty tensor is nobody's to fill

    def fill(name: str, out: Tensor) -> None:
        made, value = next(filled)
        assert made == name, "values come in the order of the shapes"
        out.copy_(value)

    try:
        write_weights(folder, [(TENSORS, measurement.shapes)], fill, indexed=False)
        left = next(filled, None)
        assert left is None, "every value has a shape"
    finally:
        if isinstance(values, Generator):
            values.close()  # a disk may be full while it lends what it has measured
