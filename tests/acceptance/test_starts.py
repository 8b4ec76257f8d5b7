"""A second study in the same home begins with the best of the first, and with its user's recipe; it says so."""

import json
from pathlib import Path

import pytest

from tests.acceptance.command import mergesearch, output
from zoo.make import Zoo
from zoo.study import write_study

pytestmark = pytest.mark.acceptance


def test_a_second_study_begins_where_the_first_ended(nano: Zoo, tmp_path: Path) -> None:
    home, evaluation = tmp_path / "home", {"documents": 16, "holdout": 0.5}
    space = {"methods": ["task_arithmetic"], "bounds": {"task_arithmetic.weight": [0.31, 0.6]}, "layers": 1}
    search = {"strategy": "tpe", "trials": 10, "parallel": 1, "starts": {"most": 0}}
    first = write_study(nano, tmp_path / "1.yaml", name="first", space=space, search=search, evaluation=evaluation)
    mergesearch("run", first, "--home", home, "--to", tmp_path / "won")
    proposed = [t for t in output("trials", "first", "--home", home) if t["origin"] == "tpe"]
    best = max(proposed, key=lambda t: (t["value"], -t["number"]))

    recipe = tmp_path / "won" / "recipe.json"
    search |= {"trials": 14, "starts": {"recipes": [str(recipe)], "most": 5}}
    second = write_study(nano, tmp_path / "2.yaml", name="second", search=search, evaluation=evaluation)
    report = output("run", second, "--home", home, "--no-export")
    trials = {t["origin"]: t for t in output("trials", "second", "--home", home)}
    given = trials["recipe:recipe"]["recipe"]["groups"]
    assert given == json.loads(recipe.read_text())["groups"]
    earlier = [origin for origin in trials if origin.startswith("earlier:first:")]
    assert earlier and f"earlier:first:{best['number']}" in {*earlier, *_same_as(best, given)}
    assert {s["label"] for s in report["starts"]} == {o for o in trials if not o.startswith("tpe")}
    assert report["best_start"]["label"] in trials
    shown = mergesearch("status", "second", "--home", home).stdout
    assert "What the search began with" in shown and "earlier:first" in shown


def _same_as(best: dict[str, object], given: object) -> set[str]:
    """The first study's best is not tried again where it is the recipe that the second was given."""
    recipe = best["recipe"]
    assert isinstance(recipe, dict)
    return {f"earlier:first:{best['number']}"} if recipe["groups"] == given else set()
