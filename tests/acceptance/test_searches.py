"""Studies a user would write, from YAML to export, and recipes straight to disk."""

import json
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from tests.acceptance.command import mergesearch, output
from zoo.make import Zoo

pytestmark = pytest.mark.acceptance

STUDY = """\
schema: mergesearch/study/v1
name: {name}
models:
  base: {zoo}/base
  experts: [{zoo}/experts/add, {zoo}/experts/rev, {{path: {zoo}/experts/dic, name: words}}]
{sections}
evaluation:
  tasks:
    - {{name: zoo_dic, metric: acc}}
    - {{name: zoo_txt, weight: 0.1}}
  include_path: {zoo}/tasks
  documents: 30
"""

GREEDY = "search: {strategy: greedy_soup, trials: 20, parallel: 2}"
PER_GROUP = """\
space: {methods: [task_arithmetic, ties, dare, layer_swap], choose: per_group, layers: each, modules: split}
search: {strategy: tpe, trials: 14, parallel: 1, seed: 1}
objective: worst
"""


def write(nano: Zoo, folder: Path, name: str, sections: str) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(STUDY.format(name=name, zoo=nano.folder, sections=sections))
    return path


def test_two_studies_in_one_home_greedy_soup_and_methods_chosen_per_group(nano: Zoo, tmp_path: Path) -> None:
    home = tmp_path / "home"
    mergesearch("run", write(nano, tmp_path, "soup", GREEDY), "--home", home)
    mergesearch("run", write(nano, tmp_path, "groups", PER_GROUP), "--home", home, "--to", tmp_path / "out")

    soup = output("trials", "soup", "--home", home)
    assert {t["origin"] for t in soup} >= {"expert:add", "expert:words", "uniform_soup"}
    soups = [t["recipe"] for t in soup if t["origin"].startswith("greedy_soup:")]
    assert soups and {g["method"] for r in soups for g in r["groups"]} == {"linear"}

    groups = output("trials", "groups", "--home", home)
    assert [t["number"] for t in groups] == list(range(14))
    searched = [t for t in groups if t["origin"] == "tpe"]
    assert all(len(t["recipe"]["groups"]) == 2 * 3 for t in searched)
    assert len({g["method"] for t in searched for g in t["recipe"]["groups"]}) >= 3
    scores = searched[0]["scores"]
    assert scores["zoo_txt"]["metric"] == "bits_per_byte" and searched[0]["value"] == pytest.approx(
        min(scores["zoo_dic"]["value"], -scores["zoo_txt"]["value"])
    )
    assert {s["name"] for s in output("status", "--home", home)} == {"soup", "groups"}
    assert json.loads((tmp_path / "out" / "verdict.json").read_text())["objective"] == "worst"


def test_a_trials_recipe_merged_by_hand_is_the_exported_trial(nano: Zoo, tmp_path: Path) -> None:
    home = tmp_path / "home"
    study = write(nano, tmp_path, "s", "search: {strategy: tpe, trials: 6, parallel: 1}")
    mergesearch("run", study, "--home", home, "--no-export")
    assert not (home / "exports").exists()
    trial = output("trials", "s", "--home", home)[5]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(trial["recipe"]))
    mergesearch("merge", recipe, "--to", tmp_path / "by-hand")
    mergesearch("export", "s", "--trial", "5", "--home", home, "--to", tmp_path / "by-trial")
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("by-hand", "by-trial"))
    assert ours.keys() == theirs.keys() and all(ours[name].equal(theirs[name]) for name in ours)
    again = mergesearch("merge", recipe, "--to", tmp_path / "by-hand", check=False)
    assert again.returncode == 2 and "exists" in again.stderr


def test_methods_and_doctor_speak_to_people_and_to_programs(nano: Zoo, tmp_path: Path) -> None:
    assert {m["name"] for m in output("methods")} >= {"linear", "ties", "slerp"}
    assert "ties" in mergesearch("methods").stdout
    study = write(nano, tmp_path, "s", "")
    found = output("doctor", study, "--home", tmp_path / "home")
    assert {f["what"] for f in found} >= {"software", "models", "tasks"} and not (tmp_path / "home").exists()
    study.write_text(study.read_text().replace("zoo_dic", "zoo_dik"))
    bad = mergesearch("doctor", study, check=False)
    assert bad.returncode == 2 and "zoo_dik" in bad.stdout
