"""Artefacts outside of a search: measured before it by `mergesearch measure`, or again for an export.

A worker measures by itself what its candidates read. Loads the models' tasks and a live model, where something is
missing.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from api.fitting import compression
from api.planning import decided
from api.prepared import load_suite
from evaluation.frame import frame
from evaluation.live import live_tensors, load_live
from merging.artefacts.request import Request, requests
from merging.artefacts.shelf import Artefact, Shelf
from merging.errors import InvalidStudy
from merging.fingerprint import FingerprintCache
from merging.models import ModelSet
from merging.recipe import Recipe
from merging.resident import ResidentModel
from search.planning import planned
from search.space import make_space
from search.starts.known import default_start
from search.study import StudySpec

Begun = Callable[[Request, Any], None]
"""Told of each `evaluation.artefacts.contract.Measurement` before it runs."""


def nobody(request: Request, measurement: Any) -> None:
    """For what nobody wants to hear."""


def measured(spec: StudySpec, device: str, begun: Begun, cache: FingerprintCache | None = None) -> list[dict[str, Any]]:
    """Measures all that the methods of a study read at their defaults, where it was not measured before.

    Args:
        spec: with absolute folders.

    Returns:
        Everything that they read, in the order of measuring: kind, expert, folder, and what its manifest says.

    Raises:
        InvalidInput: a model, a task or a setting cannot work; or no method of the study looks at data.
    """
    experts = {e.name: Path(e.path) for e in spec.models.experts}
    models = ModelSet.open(Path(spec.models.base), experts, cache=cache, tokenizer=spec.models.tokenizer)
    models = models.compressed(compression(spec, models))
    suite = load_suite(spec)
    spec = planned(spec, decided(spec, models, suite))
    space = make_space(spec, models.layout.layer_count, suite.tuning_digest, models.compression)
    looking = [row for row in space.methods if row.artefacts]
    if not looking:
        names = ", ".join(spec.space.method_names)
        remedy = "name one that does, such as regmean or fisher"
        raise InvalidStudy("space.methods", names, "look at no data: there is nothing to measure", remedy)
    found = [start.recipe for row in looking if (start := default_start(space, row)) is not None]
    ensure(found, models, spec, device, begun)
    shelf, wanted = Shelf(models.folders), dict.fromkeys(one for recipe in found for one in requests(recipe, models))
    rows: list[dict[str, Any]] = []
    for request in wanted:
        artefact = shelf.require(request)
        folder = str(artefact.folder) if isinstance(artefact, Artefact) else ""
        rows.append({"kind": request.kind, "expert": request.expert, "folder": folder, **artefact.figures})
    return rows


def ensure(recipes: Iterable[Recipe], models: ModelSet, spec: StudySpec, device: str, begun: Begun) -> None:
    """Measures what the recipes read and was not measured before; loads nothing if nothing is missing.

    Raises:
        InvalidInput: as `measured`.
    """
    shelf = Shelf(models.folders)
    missing = [one for one in recipes if any(shelf.find(request) is None for request in requests(one, models))]
    if not missing:
        return
    from evaluation.artefacts.workshop import Workshop  # lm-eval takes a second to import

    suite = load_suite(spec)
    with frame(models) as folder:
        live, tokenizer = load_live(folder, device, spec.dtype)
    tensors = live_tensors(live, models.base.names)
    workshop = Workshop(models, ResidentModel(models, tensors), live, tokenizer, tensors)
    for recipe in missing:
        workshop.ensure(recipe, suite, begun=begun)
