"""Measures what recipes read and nobody has measured yet, on the live model that candidates are written into.

An artefact is written as it is measured and takes its name at the end (`merging.artefacts.shelf`): a process that is
killed leaves nothing, and the next one begins again.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any

import psutil
import torch
from torch import Tensor

from evaluation.artefacts.contract import Beat, Joint, Measure, Measurement, Subject, alone
from evaluation.artefacts.fisher import measure_fisher
from evaluation.artefacts.inputs import measure_inputs
from evaluation.artefacts.likelihoods import ANSWERS, measure_likelihoods, own
from evaluation.artefacts.propagated import measure_propagated
from evaluation.artefacts.texts import Text, read_texts
from evaluation.lm.budget import Budget
from evaluation.lm.resident import ResidentLM
from evaluation.suite import Suite
from merging.artefacts.request import Request, likelihoods_of, requests
from merging.artefacts.shelf import TENSORS, finish
from merging.catalog.declare import ArtefactKind
from merging.models import ModelSet
from merging.recipe import Recipe
from merging.resident import ResidentModel
from merging.weightfiles import write_weights

log = logging.getLogger(__name__)
_SHARE = 0.4  # of the free memory that sums may take: activations and gradients lie beside them
_MEASURES: Mapping[ArtefactKind, Measure] = {
    "fisher": measure_fisher,
    "inputs": measure_inputs,
    "likelihoods": measure_likelihoods,
    "propagated inputs": measure_propagated,
}


def nobody() -> None:
    """A beat that nobody hears."""


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

    def ensure(self, recipe: Recipe, suite: Suite, beat: Beat = nobody) -> list[Request]:
        """Measures what the recipe reads, where it was not measured before; what the live model holds then is undone.

        Returns:
            What was measured now.

        Raises:
            InvalidStudy: the suite has nothing to measure on.
            OutputError: the artefact cannot be written anywhere.
            MemoryError: not even one sequence fits.
        """
        wanted = [request for request in requests(recipe, self._models) if self.shelf.find(request) is None]
        for request in wanted:
            self._make(request, recipe, suite, beat)
        return wanted

    def _make(self, request: Request, recipe: Recipe, suite: Suite, beat: Beat) -> None:
        with self.shelf.making(request) as folder:
            if folder is None:
                return  # another process was faster
            started = time.perf_counter()
            if request.expert:
                self._resident.apply(alone(self._models, request.expert))
            measurement = _MEASURES[request.kind](self._subject(request, recipe, suite, beat), request)
            about = {"action": "artefact.begun", "kind": request.kind, "expert": request.expert}
            log.info("measuring", extra={**about, "bytes": measurement.need, "rounds": measurement.rounds})
            _write(measurement, folder)
            seconds = round(time.perf_counter() - started, 3)
            cost = {"seconds": seconds, "bytes": measurement.need, "rounds": measurement.rounds}
            finish(folder, request, {**measurement.figures(), **cost})
            log.info("measured", extra={**about, "action": "artefact.done", "seconds": seconds})

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
        if not request.expert:
            each = {name: self.texts(suite, request, name) for name in self._models.names}
            joint = Joint(self._models, recipe, self._resident, each)
        texts = self.texts(suite, request, request.expert or self._models.names[0])
        budget = Budget(self._live, device, None)
        return Subject(self._live, self._tensors, texts, budget, int(free * _SHARE), beat, joint)


def _write(measurement: Measurement, folder: Any) -> None:
    values = measurement.values()

    def fill(name: str, out: Tensor) -> None:
        made, value = next(values)
        assert made == name, "values come in the order of the shapes"
        out.copy_(value)

    write_weights(folder, [(TENSORS, measurement.shapes)], fill, indexed=False)
    assert next(values, None) is None, "every value has a shape"
