"""The model card's commands fit every task: few-shot ones are scored in full, overrides are passed on."""

from pathlib import Path

import pytest

from api.card import check_lines
from db.records import Study
from db.store import Store
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
