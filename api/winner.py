"""Exports a trial of a study as a checkpoint, with a model card, its recipe, the verdict and a way to check it."""

import json
import tempfile
from pathlib import Path

from api.describe import describe
from db.records import Evaluation, Study, Trial
from db.store import Store
from evaluation.result import Scored
from merging.errors import Conflict, InvalidRecipe, NotFound
from merging.export import export
from merging.models import ModelSet
from merging.recipe import Recipe, parse_recipe
from search.verdict import Verdict, winner_of


def chosen_trial(store: Store, study: Study, number: int | None) -> Trial:
    """The trial to export: the one with that number, or the winner.

    Raises:
        NotFound: there is no such trial, or none is complete yet.
        Conflict: the trial has no score.
    """
    trials = store.trials.all(study.id)
    if number is None:
        if not any(t.value is not None for t in trials):
            raise NotFound(f"study {study.name!r} has no complete trial yet; run it first")
        return winner_of(trials)
    found = next((t for t in trials if t.number == number), None)
    if found is None:
        raise NotFound(f"study {study.name!r} has no trial {number}; it has {len(trials)}")
    if found.evaluation_id is None or found.value is None:
        raise Conflict(f"trial {number} is {found.state} ({found.why}); choose a complete one")
    return found


def export_trial(store: Store, study: Study, trial: Trial, to: Path) -> None:
    """Write the trial's merge to a new folder.

    Raises:
        OutputError: the folder exists or cannot be written.
        InvalidModel: the models cannot be read any more.
        Conflict: the models are no longer those that were scored.
    """
    assert trial.evaluation_id is not None, "a complete trial was evaluated"
    evaluation = store.evaluations.get(trial.evaluation_id)
    recipe = evaluation.recipe
    models = ModelSet.open(Path(recipe.base), {n: Path(p) for n, p in recipe.experts.items()}, cache=store.fingerprints)
    if models.fingerprints != study.setup["fingerprints"]:
        raise Conflict(f"the models of study {study.name!r} have changed since it ran; what was scored cannot be built")
    export(recipe, models, to, _extras(store, study, trial, evaluation))


def exported_recipe(to: Path) -> Recipe | None:
    """The recipe of the export that lies in a folder; None if none does."""
    try:
        return parse_recipe(json.loads((to / "recipe.json").read_text()))
    except (OSError, ValueError, InvalidRecipe):
        return None


def _exported_verdict(to: Path) -> object:
    try:
        return json.loads((to / "verdict.json").read_text())
    except (OSError, ValueError):
        return None


def is_own_export(store: Store, study: Study, to: Path) -> bool:
    """Whether the folder holds an export of one of the study's own recipes."""
    recipe = exported_recipe(to)
    if recipe is None or set(recipe.experts) != {e["name"] for e in study.spec["models"]["experts"]}:
        return False
    return store.evaluations.knows(study.id, recipe.digest(study.setup["fingerprints"]))


def export_winner(store: Store, study: Study, to: Path) -> None:
    """Export the winner, unless it lies there already; an export from before the study went on makes room for it.

    Raises:
        OutputError: the folder holds something else, or cannot be written.
    """
    winner = chosen_trial(store, study, None)
    assert winner.evaluation_id is not None, "a complete trial was evaluated"
    if exported_recipe(to) == store.evaluations.recipe(winner.evaluation_id) and _exported_verdict(to) == study.verdict:
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    if not is_own_export(store, study, to):
        export_trial(store, study, winner, to)
        return
    with tempfile.TemporaryDirectory(prefix=f".{to.name}.", dir=to.parent) as aside:
        fresh = Path(aside) / "new"
        export_trial(store, study, winner, fresh)
        to.rename(Path(aside) / "old")
        fresh.rename(to)


def _extras(store: Store, study: Study, trial: Trial, evaluation: Evaluation) -> dict[str, bytes]:
    verdict = Verdict.model_validate(study.verdict) if study.verdict else None
    files = {"README.md": _card(store, study, trial, evaluation, verdict).encode()}
    documents = store.studies.documents(study.id)
    for part in ("search", "holdout"):
        samples = {task: list(ids) for (task, of), ids in documents.items() if of == part}
        files[f"samples_{part}.json"] = json.dumps(samples).encode()
    if verdict is not None:
        files["verdict.json"] = verdict.model_dump_json(by_alias=True, indent=2).encode()
    return files


def _card(store: Store, study: Study, trial: Trial, evaluation: Evaluation, verdict: Verdict | None) -> str:
    """The model card, in the form the hub reads."""
    recipe = evaluation.recipe
    lines = [
        "---",
        "library_name: transformers",
        "tags: [merge, mergesearch]",
        "base_model:",
        *(f"- {Path(path).name}" for path in (recipe.base, *recipe.experts.values())),
        "---",
        f"# {study.name}",
        "",
        f"A merge found by mergesearch: {describe(recipe)}. The exact recipe is in `recipe.json` "
        f"(digest `{evaluation.recipe_digest}`).",
        "",
        f"It is trial {trial.number} ({trial.origin}) of {len(store.trials.all(study.id))}.",
        "",
        *_score_lines(evaluation, verdict, trial),
        "",
        "## Check the scores",
        "```",
        _check_command(study, "holdout"),
        "```",
        "`samples_search.json` names the search documents in the same way.",
        "",
    ]
    return "\n".join(lines)


def _score_lines(evaluation: Evaluation, verdict: Verdict | None, trial: Trial) -> list[str]:
    outcome = evaluation.outcome
    assert isinstance(outcome, Scored), "a complete trial was scored"
    finalist = next((f for f in verdict.finalists if f.trial == trial.number), None) if verdict else None
    if finalist is None:
        rows = [f"| {s.task} | {s.metric} | {s.value:.4f} |" for s in outcome.scores]
        return ["## Scores", "| task | metric | search documents |", "|---|---|---|", *rows]
    rows = [
        f"| {task} | {pair.metric} | {pair.search:.4f} | {pair.holdout:.4f} |" for task, pair in finalist.tasks.items()
    ]
    total = f"| **objective** | | {finalist.search:.4f} | {finalist.holdout:.4f} ({finalist.low:.4f} – "
    header = ["## Scores", "| task | metric | search documents | holdout (95% interval) |", "|---|---|---|---|"]
    return [*header, *rows, f"{total}{finalist.high:.4f}) |"]


def _check_command(study: Study, part: str) -> str:
    spec = study.spec["evaluation"]
    tasks = ",".join(t["name"] for t in spec["tasks"])
    include = f" --include_path {spec['include_path']}" if spec["include_path"] else ""
    return (
        f"lm_eval --model hf --model_args pretrained=. --tasks {tasks}{include} "
        f"--samples samples_{part}.json --batch_size {spec['batch_size']}"
    )
