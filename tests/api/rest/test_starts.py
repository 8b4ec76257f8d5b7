"""Recipes that a submitted study names are looked for under the roots, and nowhere else."""

import os
from pathlib import Path

from tests.api.rest.conftest import Site, assert_problem, submission


def asking(*recipes: str) -> object:
    return submission(search={"starts": {"recipes": list(recipes)}})


def test_recipes_are_looked_for_under_the_roots(site: Site, clerk: None) -> None:
    (site.root / "recipes").mkdir()
    (site.root / "recipes" / "good.json").write_text("{}")
    answer = site.post("/v1/studies", asking("recipes/good.json"))
    assert answer.status_code == 201, answer.text
    (placed,) = answer.json()["spec"]["search"]["starts"]["recipes"]
    assert placed == os.path.realpath(site.root / "recipes" / "good.json")


def test_a_recipe_outside_of_the_roots_is_refused_whether_it_is_there_or_not(
    site: Site, clerk: None, tmp_path: Path
) -> None:
    (site.root / "good.json").write_text("{}")
    (tmp_path / "outside.json").write_text("{}")
    (site.root / "link.json").symlink_to(tmp_path / "outside.json")
    for wrong in (str(tmp_path / "outside.json"), str(tmp_path / "nothing.json"), "../outside.json", "link.json"):
        answer = site.post("/v1/studies", asking("good.json", wrong))
        assert_problem(answer, 422, "invalid-input", "is not under a permitted root")
        assert answer.json()["key"] == "search.starts.recipes[1]"
    assert site.store.studies.all() == ()
