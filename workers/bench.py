"""One worker's bench: the models of one study kept resident, and candidates built and scored on it."""

import time
from collections.abc import Callable
from pathlib import Path

import torch

from db.records import Lease, Study
from db.store import Store
from evaluation.live import live_tensors, load_live
from evaluation.result import Failed, Infeasible, Part, Scored
from evaluation.scorer import NonFiniteScore, Scorer
from evaluation.spec import EvaluationSpec
from evaluation.suite import Suite
from merging.companions import companions_digest
from merging.errors import Conflict, MergesearchError, NonFiniteCandidate
from merging.models import ModelSet
from merging.recipe import Recipe
from merging.resident import ResidentModel

Progress = Callable[[int, int], None]


class LeaseLost(Exception):
    """The evaluation belongs to somebody else now: stop, and write nothing."""


class Bench:
    """Everything a study's candidates share, loaded once: models, live model, tasks.

    Args:
        device: torch's name of the device.

    Raises:
        Conflict: the tasks are not those the study was created with.
        InvalidInput: a model or a task cannot be opened any more.
    """

    def __init__(self, study: Study, store: Store, device: str) -> None:
        self._device = device
        spec, setup = study.spec, study.setup
        experts = {e["name"]: Path(e["path"]) for e in spec["models"]["experts"]}
        base = Path(spec["models"]["base"])
        evaluation = EvaluationSpec.model_validate(spec["evaluation"])
        self._suite = Suite.load(evaluation, Path("/"), setup["split_key"])
        if self._suite.digest != setup["suite_digest"]:
            raise Conflict(f"the tasks of study {study.name!r} have changed since it began; give it a new name")
        models = ModelSet.open(base, experts, cache=store.fingerprints)
        if models.fingerprints != setup["fingerprints"] or companions_digest(base) != setup["companions"]:
            raise Conflict(f"the models of study {study.name!r} have changed since it began; give it a new name")
        model, tokenizer = load_live(base, device, spec["dtype"])
        self._resident = ResidentModel(models, live_tensors(model, models.base.names))
        self._scorer = Scorer(self._suite, model, tokenizer, device, evaluation.batch_size)

    def evaluate(self, recipe: Recipe, part: Part, on_progress: Progress | None = None) -> Scored | Infeasible:
        """Build the candidate in place and score it.

        Args:
            on_progress: called with the documents done and their total; what it raises ends the evaluation.
        """
        started = time.perf_counter()
        try:
            self._resident.apply(recipe)
            built = time.perf_counter()
            scores, tokens = self._scorer.score(part, on_progress)
        except (NonFiniteCandidate, NonFiniteScore) as error:
            return Infeasible(why=str(error))
        return Scored(
            scores=scores,
            tokens=tokens,
            build_seconds=built - started,
            score_seconds=time.perf_counter() - built,
            device=device_name(self._device),
        )


def attempt(bench: Bench, lease: Lease, on_progress: Progress) -> Scored | Infeasible | Failed:
    """Evaluate, and turn whatever goes wrong into a result with its reason.

    Raises:
        LeaseLost: from `on_progress`, passed on.
        AcceleratorError: the device is lost to this process for good; another process may still use it.
    """
    try:
        return bench.evaluate(lease.recipe, lease.part, on_progress)
    except (LeaseLost, torch.AcceleratorError):
        raise
    except MergesearchError as error:
        return Failed(why=str(error))
    except (MemoryError, OSError, torch.OutOfMemoryError) as error:
        return Failed(why=_reason(error), retryable=True)
    except Exception as error:  # a candidate must never take the worker down
        return Failed(why=_reason(error))


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def device_name(device: str) -> str:
    """The device as a person knows it."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
