"""The study file: the schema's keys, and paths that hold from where it lies."""

from pathlib import Path

import yaml

import zoo


def test_study_names_models_and_tasks_relative_to_itself(nano: zoo.Zoo, tmp_path: Path) -> None:
    path = zoo.write_study(nano, tmp_path / "deep" / "study.yaml", search={"trials": 8}, space={"layers": "each"})
    study = yaml.safe_load(path.read_text())
    assert list(study) == ["schema", "name", "models", "space", "search", "evaluation", "objective"]
    here = path.parent
    assert (here / study["models"]["base"]).resolve() == nano.base
    assert {e["name"]: (here / e["path"]).resolve() for e in study["models"]["experts"]} == nano.experts
    assert (here / study["evaluation"]["include_path"]).resolve() == nano.tasks
    assert study["search"] == {"strategy": "cmaes", "trials": 8, "parallel": 2, "seed": 0}
    assert study["space"] == {"methods": ["task_arithmetic"], "layers": "each"}
    weights = {task["name"]: task["weight"] for task in study["evaluation"]["tasks"]}
    assert weights == {"zoo_add": 1.0, "zoo_rev": 1.0, "zoo_srt": 1.0, "zoo_dic": 1.0, "zoo_txt": 0.0}
