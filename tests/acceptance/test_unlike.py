"""A study of a model of another start: aligned, merged by methods that fit layers, exported."""

from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.acceptance.command import mergesearch, output
from zoo.make import Zoo
from zoo.strangers import train_stranger

pytestmark = pytest.mark.acceptance


def test_a_stranger_is_aligned_searched_with_and_exported(nano: Zoo, tmp_path: Path) -> None:
    stranger = train_stranger(nano.folder, "srt", 1)
    aligned, home, out = tmp_path / "aligned", tmp_path / "home", tmp_path / "out"
    mergesearch("align", stranger, "--like", nano.experts["add"], "--part", "all", "--to", aligned)
    content = {
        "schema": "mergesearch/study/v1",
        "name": "unlike",
        "models": {"base": str(nano.base), "experts": [str(nano.experts["add"]), str(aligned)]},
        "space": {"methods": ["pleas", "pleas_pp"], "fixed": {"pleas.documents": 8, "pleas_pp.documents": 8}},
        "search": {"trials": 6, "parallel": 1},
        "evaluation": {"tasks": ["zoo_add", "zoo_srt"], "include_path": str(nano.tasks), "documents": 20},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    mergesearch("run", tmp_path / "study.yaml", "--home", home, "--to", out)
    trials = output("trials", "unlike", "--home", home)
    assert all(trial["state"] in ("complete", "pruned") for trial in trials)
    number = next(trial["number"] for trial in trials if trial["origin"] == "default:pleas_pp")
    mergesearch("export", "unlike", "--trial", str(number), "--home", home, "--to", tmp_path / "best")
    mergesearch("merge", tmp_path / "best" / "recipe.json", "--to", tmp_path / "again")
    one, two = (load_file(tmp_path / each / "model.safetensors") for each in ("best", "again"))
    assert all(bool((one[name] == two[name]).all()) for name in one)
    mergesearch("widen", nano.experts["add"], aligned, "--ratio", "0.5", "--to", tmp_path / "wide")
    before = AutoModelForCausalLM.from_pretrained(nano.base).config.intermediate_size
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "wide").config.intermediate_size == before * 3 // 2
