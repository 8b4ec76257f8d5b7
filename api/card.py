"""The model card of an exported merge: what it is, what it scored, and how anyone can check that."""

import json
import os
import shlex
from collections import defaultdict
from pathlib import Path
from typing import Any

from api.describe import describe
from db.records import Evaluation, Study, Trial
from db.store import Store
from evaluation.result import Scored
from search.verdict import Verdict


def model_card(store: Store, study: Study, trial: Trial, evaluation: Evaluation, to: Path | None) -> str:
    """The model card, in the form the hub reads.

    Args:
        to: where the export will lie; the card names other places relative to it. None: nobody knows (it will be
            downloaded), and they are named in full.
    """
    recipe = evaluation.recipe
    lines = [
        "---",
        "library_name: transformers",
        "tags: [merge, mergesearch]",
        "base_model:",
        *(f"- {json.dumps(Path(path).name)}" for path in (recipe.base, *recipe.experts.values())),
        "---",
        f"# {study.name}",
        "",
        f"A merge found by mergesearch: {describe(recipe)}. The exact recipe is in `recipe.json` "
        f"(digest `{evaluation.recipe_digest}`).",
        "",
        f"It is trial {trial.number} ({trial.origin}) of {len(store.trials.all(study.id))}.",
        "",
        *_score_lines(study, trial, evaluation),
        "",
        *check_lines(study, to),
        "",
    ]
    return "\n".join(lines)


def _score_lines(study: Study, trial: Trial, evaluation: Evaluation) -> list[str]:
    verdict = Verdict.model_validate(study.verdict) if study.verdict else None
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


def check_lines(study: Study, to: Path | None) -> list[str]:
    """The stock commands that print the scores; one for the tasks that can share one."""
    together: dict[tuple[bool, int | None], list[str]] = defaultdict(list)
    for task in study.spec["evaluation"]["tasks"]:
        few_shot = study.setup["shots"][task["name"]] > 0
        together[few_shot, task["num_fewshot"]].append(task["name"])
    lines = ["## Check the scores", "Run in this folder, with stock lm-eval:", ""]
    for (few_shot, override), names in together.items():
        lines += ["```", _command(study.spec["evaluation"], names, override, few_shot, to), "```"]
    if any(not few_shot for few_shot, _ in together):
        lines.append("These are the holdout scores; `samples_search.json` names the search documents in the same way.")
    if any(few_shot for few_shot, _ in together):
        lines.append(
            "Few-shot prompts depend on which documents are scored, so few-shot tasks are scored in full: average "
            "the logged samples whose `doc_id` stands in `samples_holdout.json`."
        )
    return lines


def _command(spec: dict[str, Any], tasks: list[str], shots: int | None, few_shot: bool, to: Path | None) -> str:
    words = ["lm_eval --model hf --model_args pretrained=.", f"--tasks {','.join(tasks)}"]
    if spec["include_path"]:
        place = spec["include_path"] if to is None else os.path.relpath(spec["include_path"], to)
        words.append(f"--include_path {shlex.quote(place)}")
    if shots is not None:
        words.append(f"--num_fewshot {shots}")
    words.append("--log_samples --output_path check" if few_shot else "--samples samples_holdout.json")
    words.append(f"--batch_size {spec['batch_size']}")
    return " ".join(words)
