"""Exports a trial of a study as a checkpoint, with a model card, its recipe, the verdict and a way to check it."""

import json
from pathlib import Path

from api.card import model_card
from api.choice import chosen_trial
from api.compressing import write_as
from api.forms import Form, check_form
from api.measuring import ensure, nobody
from db.records import Study, Trial
from db.store import Store
from merging.adapters.config import CONFIG
from merging.codecs.record import RECORD
from merging.errors import Conflict, InvalidRecipe
from merging.models import ModelSet
from merging.recipe import Recipe, parse_recipe
from search.study import StudySpec


def export_trial(
    store: Store, study: Study, trial: Trial, to: Path, *, stays: bool = True, form: Form | None = None
) -> str:
    """Write the trial's merge to a new folder, and say what was written. What its method looked at is measured again
    if it is gone.

    Args:
        stays: whether it is used where it lies now, so that the card may name places relative to it.
        form: by default a full checkpoint.

    Raises:
        OutputError: the folder exists or cannot be written.
        InvalidModel: the models cannot be read any more.
        Conflict: the models are no longer those that were scored.
        InvalidStudy: there is no such form or setting.
    """
    form = form or Form()
    check_form(form)
    assert trial.evaluation_id is not None, "a complete trial was evaluated"
    evaluation = store.evaluations.get(trial.evaluation_id)
    recipe = evaluation.recipe
    experts = {name: Path(place) for name, place in recipe.experts.items()}
    models = ModelSet.open(Path(recipe.base), experts, cache=store.fingerprints, tokenizer=recipe.tokenizer)
    now = {"fingerprints": dict(models.fingerprints), "companions": models.companions_digest}
    if any(study.setup.get(key) != value for key, value in now.items()):
        raise Conflict(f"the models of study {study.name!r} have changed since it ran; what was scored cannot be built")
    packed = study.setup.get("compressed")
    models = models.compressed(recipe.compress, packed and packed["fingerprints"])
    ensure([recipe], models, StudySpec.model_validate(study.spec), "cpu", nobody)
    extras = _extras(store, study)
    extras["README.md"] = model_card(store, study, trial, evaluation, to if stays else None, form.name).encode()
    return write_as(form.name, recipe, models, to, form.settings, extras)


def exported_recipe(to: Path) -> Recipe | None:
    """The recipe of the export that lies in a folder; None if none does."""
    try:
        return parse_recipe(json.loads((to / "recipe.json").read_text()))
    except (OSError, ValueError, InvalidRecipe):
        return None


def _is_export_of(store: Store, study: Study, trial: Trial, to: Path) -> bool:
    """Whether the folder holds that trial as a full checkpoint, with the verdict as it is now."""
    if any((to / name).exists() for name in (CONFIG, RECORD)):
        return False  # only what it changes of the base
    recipe = exported_recipe(to)
    assert recipe is not None and trial.evaluation_id is not None, "both were looked at before"
    wanted = store.evaluations.get(trial.evaluation_id).recipe_digest
    try:
        verdict = json.loads((to / "verdict.json").read_text())
    except (OSError, ValueError):
        return False
    return verdict == study.verdict and recipe.digest(study.setup["fingerprints"]) == wanted


def is_own_export(store: Store, study: Study, to: Path) -> bool:
    """Whether the folder holds an export of one of the study's own recipes."""
    recipe = exported_recipe(to)
    if recipe is None or set(recipe.experts) != {e["name"] for e in study.spec["models"]["experts"]}:
        return False
    return store.evaluations.knows(study.id, recipe.digest(study.setup["fingerprints"]))


def export_winner(store: Store, study: Study, to: Path) -> Path:
    """Export the winner; where an earlier export of the study lies, beside it: nothing is ever overwritten.

    Returns:
        Where the winner lies now.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    winner = chosen_trial(store, study, None)
    to.parent.mkdir(parents=True, exist_ok=True)
    place, number = to, 1
    while is_own_export(store, study, place):
        if _is_export_of(store, study, winner, place):
            return place
        number += 1
        place = to.with_name(f"{to.name}-{number}")
    export_trial(store, study, winner, place)
    return place


def _extras(store: Store, study: Study) -> dict[str, bytes]:
    files = {}
    documents = store.studies.documents(study.id)
    for part in ("search", "holdout"):
        samples = {task: sorted(given.ids) for (task, of), given in documents.items() if of == part}
        files[f"samples_{part}.json"] = json.dumps(samples).encode()
    if study.verdict is not None:
        files["verdict.json"] = json.dumps(study.verdict, indent=2).encode()
    return files
