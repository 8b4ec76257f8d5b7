"""The main job on real models: the demo trains, searches, judges and exports; stock lm_eval confirms its scores."""

import json
import shlex
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from db.store import open_home
from search.mirror.layout import Layout
from search.space import space_of
from tests.acceptance.command import LIMIT_SECONDS, mergesearch, output

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1200)]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the demo ran to its end."""
    folder = tmp_path_factory.mktemp("demo")
    shown = mergesearch("demo", "--folder", folder)
    assert "Verdict" in shown.stdout and "winner" in shown.stdout
    return folder


@pytest.fixture(scope="module")
def verdict(demo: Path) -> Any:
    return output("status", "zoo-demo", "--home", demo / "home")["verdict"]


def test_the_winner_beats_the_best_expert_and_the_uniform_soup_on_documents_the_search_never_saw(verdict: Any) -> None:
    by_trial = {f["trial"]: f for f in verdict["finalists"]}
    winner = by_trial[verdict["winner"]]
    assert winner["low"] < winner["holdout"] < winner["high"]
    experts = [f for f in verdict["finalists"] if f["label"].startswith("expert:")]
    soup = next(f for f in verdict["finalists"] if f["label"] == "uniform_soup")
    assert len(experts) == 4
    assert winner["holdout"] >= max(e["holdout"] for e in experts) + 0.25
    assert winner["holdout"] >= soup["holdout"] + 0.10
    for beaten in (*experts, soup):
        assert beaten["winner_minus_this"]["p_value"] < 0.01
        assert beaten["winner_minus_this"]["low"] > 0


def test_transformers_loads_the_export_and_it_answers(demo: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(demo / "winner")
    tokenizer = AutoTokenizer.from_pretrained(demo / "winner")
    asked = tokenizer("[dic]kat=", return_tensors="pt")
    with torch.no_grad():
        answer = model.generate(**asked, max_new_tokens=4, do_sample=False)
    assert answer.shape[1] > asked["input_ids"].shape[1]
    for name in ("recipe.json", "verdict.json", "README.md", "samples_search.json", "samples_holdout.json"):
        assert (demo / "winner" / name).is_file()


@pytest.mark.parametrize("part", ["search", "holdout"])
def test_the_stock_command_prints_the_scores_that_the_database_holds(demo: Path, verdict: Any, part: str) -> None:
    """The command is the one in the export's own model card."""
    card = (demo / "winner" / "README.md").read_text().splitlines()
    command = next(line for line in card if line.startswith("lm_eval ")).replace("holdout", part)
    words = [sys.executable, "-m", "lm_eval", *shlex.split(command)[1:], "--output_path", f"{demo / part}"]
    done = subprocess.run(words, cwd=demo / "winner", capture_output=True, text=True, timeout=LIMIT_SECONDS)
    assert done.returncode == 0, done.stderr
    results = json.loads(next((demo / part).rglob("results*.json")).read_text())["results"]
    winner = next(f for f in verdict["finalists"] if f["trial"] == verdict["winner"])
    assert set(results) == set(winner["tasks"]) == {"zoo_add", "zoo_rev", "zoo_srt", "zoo_dic", "zoo_txt"}
    for task, pair in winner["tasks"].items():
        found = results[task][f"{pair['metric']},none"]
        assert found == pytest.approx(pair[part], rel=1e-6), task  # sums in another order; printed, they are equal
        printed = next(line for line in done.stdout.splitlines() if line.startswith(f"|{task}"))
        assert f"{pair[part]:.4f}".rstrip("0").rstrip(".") in printed, printed


def test_the_dashboards_copy_holds_every_trial(demo: Path) -> None:
    trials = output("trials", "zoo-demo", "--home", demo / "home")
    copy = optuna.load_study(study_name="zoo-demo", storage=f"sqlite:///{demo / 'home' / 'optuna.db'}")
    assert [t.state.name.lower() for t in copy.trials] == [t["state"] for t in trials]
    complete = {t["number"]: t["value"] for t in trials if t["state"] == "complete"}
    assert {t.number: t.value for t in copy.trials if t.number in complete} == complete
    with closing(open_home(demo / "home")) as store:  # more than 32 numbers, which are summed up
        layout = Layout(space_of(store.studies.get("zoo-demo")))
    summed = [{name: value for name, (_, value) in layout.point(t["params"]).items()} for t in trials]
    assert layout.summarised and [t.params for t in copy.trials] == summed
    assert copy.best_trial.value == max(complete.values())


def test_run_again_the_demo_shows_its_result_at_once(demo: Path, verdict: Any) -> None:
    again = output("demo", "--folder", demo)
    assert again["winner"] == verdict["winner"] and again["exported_to"] == str(demo / "winner")
