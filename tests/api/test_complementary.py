"""The set of a study's recipes that complement each other."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import app
from api.complementary import chosen
from db.store import open_home
from evaluation.result import Part, Scored
from merging.errors import Conflict, NotFound
from merging.recipe import Recipe
from search.controller import Search
from search.opening import open_search
from search.space import make_space
from tests.search.factories import LAYERS, create, make_spec, run_search, scored

HALVES = {"a": (1, 1, 1, 1, 1, 0, 0, 0), "b": (1, 1, 1, 1, 0, 0, 0, 0), "c": (0, 0, 0, 0, 0, 1, 1, 1)}


def of(items: Sequence[float]) -> Scored:
    (score,) = scored(sum(items) / len(items)).scores
    return scored(0.0).model_copy(update={"scores": (score.model_copy(update={"items": tuple(map(float, items))}),)})


def evaluate(recipe: Recipe, part: Part) -> Scored:
    """Each expert alone answers its documents, everything else none."""
    alone = [name for name, weight in recipe.groups[0].weights.items() if weight == 1.0]
    return of(HALVES[alone[0]] if len(alone) == 1 else (0,) * 8)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    spec, store = make_spec(search={"trials": 8}), open_home(tmp_path)
    space = make_space(spec, LAYERS)
    study = create(store, spec)
    run_search(Search(study, spec, 1, space, *open_search(spec, space), lambda told: None), store, evaluate)
    store.studies.create("empty", spec.to_json(), "other", study.setup, {})
    store.close()
    return tmp_path


def test_the_second_is_who_answers_what_the_first_does_not(home: Path) -> None:
    rows = chosen("test", 3, home)
    assert [(row["origin"], row["coverage"]) for row in rows] == [("expert:a", 5 / 8), ("expert:c", 1.0)]
    assert len(chosen("test", 1, home)) == 1


def test_the_command_shows_the_same(home: Path) -> None:
    run = CliRunner()
    found = run.invoke(app, ["complementary", "test", "--home", str(home), "--json"])
    assert json.loads(found.stdout) == chosen("test", 3, home)
    shown = run.invoke(app, ["complementary", "test", "--home", str(home)]).stdout
    assert "expert:c" in shown and "1.0000" in shown


def test_a_study_without_a_full_score_has_none(home: Path) -> None:
    with pytest.raises(Conflict, match="no trial that was scored in full"):
        chosen("empty", 3, home)
    with pytest.raises(NotFound):
        chosen("nobody", 3, home)
