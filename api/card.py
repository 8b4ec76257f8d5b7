"""The model card of an exported merge: what it is, what it scored, and how anyone can check that."""

import json
import os
import shlex
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from api.describe import describe
from api.explained import explained
from db.records import Evaluation, Study, Trial
from db.store import Store
from evaluation.result import Scored, TaskScore
from evaluation.spec import JUDGE_SCALE, PROXY
from merging.recipe import Recipe
from search.verdict import Finalist, Verdict

# How stock lm-eval loads an export of that form; other forms it does not know.
_LOADED = {"full": "pretrained=.", "lora": "pretrained={base},tokenizer={base},peft=."}


def model_card(
    store: Store, study: Study, trial: Trial, evaluation: Evaluation, to: Path | None, form: str = "full"
) -> str:
    """The model card, in the form the hub reads.

    Args:
        form: what the merge is exported as (`api.forms.FORMS`).
        to: where the export will lie; the card names other places relative to it. None: nobody knows (it will be
            downloaded), and they are named in full.
    """
    recipe, outcome = evaluation.recipe, evaluation.outcome
    assert isinstance(outcome, Scored), "a complete trial was scored"
    verdict = Verdict.model_validate(study.verdict) if study.verdict else None
    lines = [
        "---",
        f"library_name: {'peft' if form == 'lora' else 'transformers'}",
        "tags: [merge, mergesearch]",
        "base_model:",
        *(f"- {json.dumps(Path(path).name)}" for path in (recipe.base, *recipe.experts.values())),
        "---",
        f"# {study.name}",
        "",
        f"A merge found by mergesearch: {describe(recipe)}{_packed(recipe)}. The exact recipe is in `recipe.json` "
        f"(digest `{evaluation.recipe_digest}`).",
        "",
        f"It is trial {trial.number} ({trial.origin}) of {len(store.trials.all(study.id))}.{_form_line(form)}",
        "",
        *score_lines(verdict, trial.number, outcome.scores),
        "",
        *own_lines(study.spec["evaluation"]["tasks"]),
        *check_lines(study, to, form),
        "",
    ]
    return "\n".join(lines)


def _packed(recipe: Recipe) -> str:
    """That it is a merge of compressed experts, where it is one."""
    if recipe.compress is None:
        return ""
    return f", of experts compressed by `{recipe.compress.codec}` (the recipe says so, and building it packs them)"


def _form_line(form: str) -> str:
    """What lies in the folder, where it is no full checkpoint."""
    if form == "full":
        return ""
    kind = "a LoRA of the base" if form == "lora" else f"a delta of the base, compressed by `{form}`"
    lossy = "" if form in ("lora", "xor") else " The scores are those of the merge before it was compressed."
    return f" This folder holds {kind}.{lossy}"


def score_lines(verdict: Verdict | None, trial: int, scores: Sequence[TaskScore]) -> list[str]:
    """The section on a trial's scores: with the holdout where it was compared there, and how far to believe them.

    Args:
        trial: its number.
        scores: what it has on the search documents.
    """
    finalist = next((f for f in verdict.finalists if f.trial == trial), None) if verdict else None
    if finalist is None or verdict is None:
        rows = [f"| {s.task} | {s.metric} | {s.value:.4f}{_error(s.stderr)} |" for s in scores if s.task != PROXY]
        return ["## Scores", "| task | metric | search documents |", "|---|---|---|", *rows]
    rows = [
        f"| {task} | {pair.metric} | {pair.search:.4f}{_error(pair.search_stderr)} "
        f"| {pair.holdout:.4f}{_error(pair.holdout_stderr)} |"
        for task, pair in finalist.tasks.items()
    ]
    total = f"| **objective** | | {finalist.search:.4f} | {finalist.holdout:.4f} ({finalist.low:.4f} – "
    header = [
        "## Scores",
        "| task | metric | search documents (± standard error) | holdout (± standard error; 95% interval) |",
        "|---|---|---|---|",
    ]
    return [*header, *rows, f"{total}{finalist.high:.4f}) |", "", *_belief(finalist, verdict), *_owes(trial, verdict)]


def _owes(trial: int, verdict: Verdict) -> list[str]:
    """What the winner owes to what, a paragraph; of others nothing is known."""
    told = verdict.explanation
    if told is None or told.trial != trial:
        return []
    return ["", " ".join(explained(told))]


def own_lines(tasks: Sequence[dict[str, Any]]) -> list[str]:
    """What a reader cannot look up: who judged and by what, and whose function scored."""
    lines = []
    for task in tasks:
        if task.get("kind") == "judge":
            low, high = task["scale"] or JUDGE_SCALE
            asked = " ".join(task["rubric"].split())
            lines.append(f"- `{task['name']}`: rated from {low:g} to {high:g} by `{task['model']}`, asked: {asked}")
        elif task.get("kind") == "python":
            lines.append(f"- `{task['name']}`: computed by `{task['function']}`, a function of the study's author.")
    return [*lines, ""] if lines else []


def _error(stderr: float | None) -> str:
    return "" if stderr is None else f" ± {stderr:.4f}"


def _belief(finalist: Finalist, verdict: Verdict) -> list[str]:
    """What a reader of the table must know to believe it: which column picked this merge, and how the other fared."""
    won, lost = finalist.trial == verdict.winner, finalist.search - finalist.holdout
    said = f"On the holdout the objective is {abs(lost):.4f} {'lower' if lost > 0 else 'higher'}"
    if won:
        said = f"The search documents picked this merge of {verdict.trials} trials; the holdout did not. {said}"
    if won and verdict.optimism is not None:
        least = "at least " if verdict.pruned else ""
        said += f" (expected of the best of {verdict.candidates}: {least}{verdict.optimism:.4f} lower)"
    reads = verdict.holdout_reads
    once = "read once" if reads == 1 else f"read {reads} times, each time after more trials: it is no longer unseen"
    lines = [f"{said}. The holdout was {once}."]
    if verdict.measured_as is not None:
        lines.append(f"The objective in the table is {verdict.measured_as}; the study picked by {verdict.objective}.")
    if won:
        lines += [f"Constraint `{k.constraint}`: {k.said}." for k in verdict.constraints]
    return lines


def check_lines(study: Study, to: Path | None, form: str = "full") -> list[str]:
    """The stock commands that print the scores; one for the tasks that can share one."""
    if form not in _LOADED:
        return []
    together: dict[tuple[bool, int | None], list[str]] = defaultdict(list)
    for task in study.spec["evaluation"]["tasks"]:
        if task.get("kind", "lm_eval") != "lm_eval":
            continue  # stock lm-eval does not know the other kinds
        few_shot = study.setup["shots"][task["name"]] > 0
        together[few_shot, task["num_fewshot"]].append(task["name"])
    if not together:
        return []
    lines = ["## Check the scores", "Run in this folder, with stock lm-eval:", ""]
    for (few_shot, override), names in together.items():
        command = _command(study.spec["evaluation"], names, override, few_shot, to)
        base = shlex.quote(_place(study.spec["models"]["base"], to))
        lines += ["```", command.replace(_LOADED["full"], _LOADED[form].format(base=base)), "```"]
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
        words.append(f"--include_path {shlex.quote(_place(spec['include_path'], to))}")
    if shots is not None:
        words.append(f"--num_fewshot {shots}")
    if spec.get("chat_template"):  # studies of an earlier version do not say
        words.append(f"--apply_chat_template --fewshot_as_multiturn {str(spec['fewshot_as_multiturn']).lower()}")
    words.append("--log_samples --output_path check" if few_shot else "--samples samples_holdout.json")
    words.append(f"--batch_size {spec['batch_size']}")
    return " ".join(words)


def _place(folder: str, to: Path | None) -> str:
    return folder if to is None else os.path.relpath(folder, to)
