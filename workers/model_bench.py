"""The real benches: models stay resident from trial to trial and study to study, candidates are scored on them."""

import gc
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch

from db.records import Study
from db.store import Store
from evaluation.chat import template_folder
from evaluation.errors import EngineLost, NonFiniteScore
from evaluation.frame import frame
from evaluation.gates.look import Look
from evaluation.live import live_tensors, load_live
from evaluation.lm.budget import out_of_memory
from evaluation.result import TaskScore
from evaluation.scorer import Scorer
from evaluation.spec import EvaluationSpec
from evaluation.suite import Suite
from evaluation.vllm.start import live_device, start
from evaluation.wanted import Wanted
from merging.compression import Compression
from merging.errors import Conflict, InvalidRecipe, NonFiniteCandidate
from merging.models import ModelSet
from merging.recipe import Recipe
from workers.benches import DeviceLost, Impossible, Measuring, Progress
from workers.builder import Builder
from workers.gate import Gate
from workers.host import memory
from workers.stacked import is_restacked

MOST_SUITES = 4  # studies whose tasks are kept; a task's documents and prompts lie in memory
_log = logging.getLogger(__name__)


class Resident:
    """One set of models in memory: base and experts, and the live model that candidates are written into.

    Raises:
        Conflict: the models are not those the study was created with.
        InvalidModel: one cannot be opened any more.
        InvalidStudy: vLLM is not installed, or does not serve them.
    """

    def __init__(self, study: Study, store: Store, device: str) -> None:
        models = _open(study, store)
        on_vllm = _evaluation(study).backend == "vllm"
        with frame(models) as folder:
            self._place = live_device(folder, device) if on_vllm else device
            self.live, self.tokenizer = load_live(folder, self._place, study.spec["dtype"])
            tensors = live_tensors(self.live, models.base.names)
            # now, while a GPU's memory is free: experts that find no room there wait outside of it
            self._engine = start(folder, self.live, tensors, self.tokenizer, device) if on_vllm else None
        packed = study.setup.get("compressed")
        by = None if packed is None else Compression.model_validate(packed["by"])
        limit = study.spec["models"].get("memory")  # studies of an earlier version do not say
        known = packed and packed["fingerprints"]
        self._models = models
        self._builder = Builder(models, self.live, self.tokenizer, tensors, by, limit, known)
        self.gates: dict[int, Gate] = {}  # by study; of those that have one

    def build(self, recipe: Recipe, suite: Suite, on_measuring: Measuring) -> None:
        """Write the candidate into the live model, where it differs from the last one, and hand it to the engine.

        What its methods want to know of the suite's search documents is measured first.
        """
        if self._engine is not None and is_restacked(recipe, self._models):
            problem, remedy = "give the result other layers than vLLM's engine has", "leave out evaluation.backend"
            raise InvalidRecipe("slices", len(recipe.slices), problem, remedy)
        if self._builder.build(recipe, suite, on_measuring) and self._engine is not None:
            self._engine.take()

    def scorer(self, study: Study, suite: Suite) -> Scorer:
        """What scores the candidate that was built last on a study's tasks."""
        held = self._builder.held
        if study.id not in held.scorers:
            most_rows = _evaluation(study).most_rows
            held.scorers[study.id] = Scorer(suite, held.live, self.tokenizer, self._place, most_rows, lm=self._engine)
        return held.scorers[study.id]

    def forget(self, study_id: int) -> None:
        """A study's tasks are not kept any more."""
        self.gates.pop(study_id, None)
        for held in (self._builder.own, self._builder.stacked.held):
            if held is not None:
                held.scorers.pop(study_id, None)

    def close(self) -> None:
        """Give back what is not freed by itself."""
        if self._engine is not None:
            self._engine.close()


class ModelBench:
    """One study's bench on the resident models."""

    def __init__(self, resident: Resident, study: Study, suite: Suite, device: str) -> None:
        self.device = device_name(device)
        self._resident, self._study, self._suite = resident, study, suite
        resident.scorer(study, suite)  # what it cannot score, it cannot be a bench for
        self._gate = self._gate_of(study) if study.spec["search"].get("gates") else None
        self._recipe: Recipe | None = None

    def build(self, recipe: Recipe, on_measuring: Measuring) -> None:
        """Make the recipe's candidate the resident one."""
        with _translated():
            if self._gate is not None:
                self._gate.prepare(recipe, lambda: on_measuring(0, 1))
            self._resident.build(recipe, self._suite, on_measuring)
            self._recipe = recipe

    def score(self, wanted: Wanted, on_progress: Progress) -> tuple[tuple[TaskScore, ...], int]:
        """Score the live model on the study's tasks; a study with a gate has it looked at before."""
        with _translated():
            if self._gate is not None and self._recipe is not None and wanted.missing:
                self._gate.require(self._recipe, wanted, lambda: on_progress(wanted.reused, _size(wanted), 0))
            scorer = self._resident.scorer(self._study, self._suite)  # of the model that holds the candidate
            return scorer.score(wanted, lambda done, total: on_progress(done, total, scorer.tokens))

    def _gate_of(self, study: Study) -> Gate:
        """The study's gate, made once for the resident models."""

        def build(recipe: Recipe) -> None:
            self._resident.build(recipe, self._suite, lambda done, total: None)

        def look(beat: Callable[[], None]) -> Look:
            return self._resident.scorer(study, self._suite).look(beat)

        return self._resident.gates.setdefault(study.id, Gate(study.setup["layer_count"], build, look))


def _size(wanted: Wanted) -> int:
    return sum(map(len, wanted.documents.values()))


class ModelBenches:
    """Benches on one device. One set of models is resident at a time; studies of the same models share it.

    Args:
        device: torch's name of the device.
    """

    def __init__(self, store: Store, device: str) -> None:
        self._store, self._device = store, device
        self._key = ""
        self._resident: Resident | None = None
        self._suites: OrderedDict[int, tuple[Study, Suite]] = OrderedDict()  # the latest used last

    def bench(self, study_id: int) -> ModelBench:
        """The study's bench; its tasks and models are loaded if they are not here."""
        try:
            with _translated():
                return self._bench(study_id)
        except MemoryError:
            self.clear()  # what is half there helps nobody
            raise

    def clear(self) -> None:
        """Give all memory back."""
        self._suites.clear()
        self._evict()

    def facts(self) -> Mapping[str, object]:
        """The device's name, and its memory."""
        if self._device.startswith("cuda"):
            free, total = torch.cuda.mem_get_info(self._device)
            used = total - free
        else:
            used, total = memory()
        return {"device_name": device_name(self._device), "memory_used": used, "memory_total": total}

    def _bench(self, study_id: int) -> ModelBench:
        study, suite = self._suite(study_id)
        resident = self._models(study)
        return ModelBench(resident, study, suite, self._device)

    def _suite(self, study_id: int) -> tuple[Study, Suite]:
        if study_id not in self._suites:
            while len(self._suites) >= MOST_SUITES:
                oldest, _ = self._suites.popitem(last=False)
                if self._resident is not None:
                    self._resident.forget(oldest)
            study = self._store.studies.by_id(study_id)
            evaluation = _evaluation(study)
            chat = template_folder(*_places(study)) if evaluation.chat_template else None
            suite = Suite.load(evaluation, Path("/"), study.setup["split_key"], chat)
            if not suite.is_of(study.setup):
                raise Conflict(f"the tasks of study {study.name!r} have changed since it began; give it a new name")
            self._suites[study_id] = study, suite
        self._suites.move_to_end(study_id)
        return self._suites[study_id]

    def _models(self, study: Study) -> Resident:
        setup = study.setup
        made_of = [setup["fingerprints"], setup["companions"], study.spec["dtype"], _evaluation(study).backend]
        made_of += [setup.get("compressed"), study.spec["models"].get("memory")]
        key = json.dumps(made_of, sort_keys=True)
        if self._resident is None or self._key != key:
            self._evict()  # two sets may not fit
            _log.info("loading models", extra={"action": "models.loading", "study": study.id})
            self._resident, self._key = Resident(study, self._store, self._device), key
        return self._resident

    def _evict(self) -> None:
        if self._resident is not None:
            self._resident.close()
        self._resident, self._key = None, ""
        gc.collect()  # a model and its hooks refer to each other
        if self._device.startswith("cuda"):
            torch.cuda.empty_cache()


def _evaluation(study: Study) -> EvaluationSpec:
    return EvaluationSpec.model_validate(study.spec["evaluation"])


def _open(study: Study, store: Store) -> ModelSet:
    """The study's models, seen to be what they were when it was created."""
    base, experts, tokenizer = _places(study)
    models = ModelSet.open(base, experts, cache=store.fingerprints, tokenizer=tokenizer)
    now = models.fingerprints, models.companions_digest
    if now != (study.setup["fingerprints"], study.setup["companions"]):
        raise Conflict(f"the models of study {study.name!r} have changed since it began; give it a new name")
    return models


def _places(study: Study) -> tuple[Path, dict[str, Path], str]:
    """The folders of base and experts, and whose vocabulary the merges have."""
    places = study.spec["models"]
    experts = {e["name"]: Path(e["path"]) for e in places["experts"]}
    return Path(places["base"]), experts, places.get("tokenizer", "base")  # studies of an earlier version do not say


@contextmanager
def _translated() -> Iterator[None]:
    """Turns torch's and the scorer's errors into those a worker knows without loading torch."""
    try:
        yield
    except (NonFiniteCandidate, NonFiniteScore, InvalidRecipe) as error:
        raise Impossible(str(error)) from error
    except (torch.AcceleratorError, EngineLost) as error:
        raise DeviceLost(str(error)) from error
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        torch.cuda.empty_cache()
        raise MemoryError(str(error)) from error


def device_name(device: str) -> str:
    """The device as a person knows it."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
