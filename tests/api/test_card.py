"""The model card's commands fit every task: few-shot ones are scored in full, overrides are passed on."""

from pathlib import Path
from typing import Any

import pytest

from api.card import check_lines, own_lines, score_lines
from db.records import Study
from db.store import Store
from evaluation.result import TaskScore
from search.verdict import Finalist, Kept, TaskPair, Verdict
from tests.search.factories import LAYERS, fingerprints, make_spec


@pytest.fixture
def study(store: Store) -> Study:
    tasks = [{"name": "zero"}, {"name": "also"}, {"name": "few"}, {"name": "fewer", "num_fewshot": 2}]
    spec = make_spec(evaluation={"tasks": tasks, "include_path": "/home/me/my tasks"})
    setup = {
        "fingerprints": fingerprints(spec),
        "layer_count": LAYERS,
        "shots": {"zero": 0, "also": 0, "few": 5, "fewer": 2},
    }
    return store.studies.create(spec.name, spec.to_json(), spec.frozen_digest(), setup, {})


def test_tasks_share_a_command_where_they_can(study: Study) -> None:
    commands = [line for line in check_lines(study, Path("/home/me/out")) if line.startswith("lm_eval")]
    assert len(commands) == 3
    assert "--tasks zero,also " in commands[0] and "--samples samples_holdout.json" in commands[0]
    assert "--tasks few " in commands[1] and "--samples" not in commands[1] and "--num_fewshot" not in commands[1]
    assert "--num_fewshot 2" in commands[2] and "--log_samples" in commands[2]
    assert all("--include_path '../my tasks'" in c for c in commands), "no absolute path is published"


def test_it_says_how_few_shot_tasks_are_compared(study: Study) -> None:
    said = " ".join(check_lines(study, Path("/home/me/out")))
    assert "scored in full" in said and "samples_holdout.json" in said


def test_the_chat_template_is_named_and_other_kinds_of_tasks_are_not(store: Store) -> None:
    tasks = [{"name": "asked"}, {"name": "notes", "kind": "text", "path": "notes.txt"}]
    spec = make_spec(evaluation={"tasks": tasks, "chat_template": True, "fewshot_as_multiturn": False})
    setup = {"fingerprints": fingerprints(spec), "layer_count": LAYERS, "shots": {"asked": 0, "notes": None}}
    study = store.studies.create(spec.name, spec.to_json(), spec.frozen_digest(), setup, {})
    (command,) = [line for line in check_lines(study, None) if line.startswith("lm_eval")]
    assert "--tasks asked " in command and "--apply_chat_template --fewshot_as_multiturn false" in command
    assert command.endswith("--batch_size auto")


def judged(**more: Any) -> Verdict:
    """A verdict with one task, that trial 7 won and expert 0 did not."""
    pair = TaskPair(metric="acc", search=0.75, search_stderr=0.01, holdout=0.7, holdout_stderr=0.02)
    seven = Finalist(
        label="tpe",
        trial=7,
        recipe_digest="d",
        search=0.75,
        holdout=0.7,
        low=0.6,
        high=0.8,
        tasks={"zero": pair},
        winner_minus_this=None,
    )
    documents = {"search": 100, "holdout": 50}
    expert = seven.model_copy(update={"trial": 0, "search": 0.3, "holdout": 0.31})
    found = Verdict(
        objective="mean", finalists=(expert, seven), winner=7, best_expert=0, documents=documents, trials=60
    )
    return found.model_copy(update=more)


def test_the_scores_say_which_of_them_flatters() -> None:
    said = " ".join(score_lines(judged(optimism=0.04, candidates=55), 7, ()))
    assert "| zero | acc | 0.7500 ± 0.0100 | 0.7000 ± 0.0200 |" in said
    assert "| **objective** | | 0.7500 | 0.7000 (0.6000 – 0.8000) |" in said
    assert "picked this merge of 60 trials; the holdout did not." in said
    assert "is 0.0500 lower (expected of the best of 55: 0.0400 lower). The holdout was read once." in said


def test_a_baseline_s_scores_are_not_called_the_best_of_many() -> None:
    said = " ".join(score_lines(judged(optimism=0.04, candidates=55), 0, ()))
    assert "is 0.0100 higher. The holdout was read once." in said and "expected" not in said
    assert "picked this merge" not in said


def test_what_weakens_the_scores_is_said() -> None:
    kept = (Kept(constraint="zero at least 0.5", search=-0.2, holdout=0.1),)
    said = " ".join(score_lines(judged(holdout_reads=3, measured_as="the mean", constraints=kept), 7, ()))
    assert "read 3 times, each time after more trials: it is no longer unseen." in said
    assert "The objective in the table is the mean" in said
    assert "Constraint `zero at least 0.5`: met on the search documents, not met on the holdout." in said


def test_without_a_verdict_the_search_scores_are_all_there_is() -> None:
    score = TaskScore(
        task="zero", metric="acc", value=0.5, stderr=None, higher_is_better=True, documents=(0,), items=(0.5,)
    )
    assert score_lines(None, 7, (score,))[-1] == "| zero | acc | 0.5000 |"
    assert score_lines(judged(), 33, (score,))[-1] == "| zero | acc | 0.5000 |", "it was not compared"


def test_it_says_who_judged_by_what_and_whose_function_scored() -> None:
    judged_by = {"name": "tone", "kind": "judge", "model": "big-7b", "rubric": "Is it\n  kind?", "scale": None}
    function = {"name": "own", "kind": "python", "function": "mine:score"}
    tone, own, _ = own_lines([{"name": "zero"}, judged_by, function])
    assert tone == "- `tone`: rated from 1 to 10 by `big-7b`, asked: Is it kind?"
    assert "`own`" in own and "`mine:score`" in own
    assert own_lines([{"name": "zero"}]) == []
