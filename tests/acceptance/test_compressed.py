"""A study whose experts need more memory than it allows: compressed, said so, killed, gone on, and exported."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.acceptance.command import mergesearch, output, read_until, started
from zoo.make import Zoo

pytestmark = pytest.mark.acceptance


def write(nano: Zoo, folder: Path, memory: int, **models: object) -> Path:
    content = {
        "schema": "mergesearch/study/v1",
        "name": "packed",
        "models": {
            "base": str(nano.base),
            "experts": [str(nano.experts[name]) for name in ("add", "rev", "dic")],
            "memory": memory,
            **models,
        },
        "space": {"methods": ["task_arithmetic", "regmean"], "fixed": {"regmean.documents": 8}},
        "search": {"trials": 10, "parallel": 2},
        "evaluation": {"tasks": ["zoo_rev", "zoo_dic"], "include_path": str(nano.tasks), "documents": 30},
    }
    study = folder / "study.yaml"
    study.write_text(yaml.safe_dump(content))
    return study


def test_experts_that_do_not_fit_are_compressed_and_what_that_costs_is_said(nano: Zoo, tmp_path: Path) -> None:
    size = (nano.base / "model.safetensors").stat().st_size
    home, study = tmp_path / "home", write(nano, tmp_path, 2 * size)
    with started("run", study, "--home", home) as run:
        assert "compressed by bitdelta" in read_until(run, "compressed")
        read_until(run, "scoring the best with the experts as they are")
        os.killpg(run.pid, signal.SIGKILL)
        run.wait()
    said = mergesearch("run", study, "--home", home, "--to", tmp_path / "won")
    assert "with the experts as they are" in " ".join(said.stdout.split())
    verdict = json.loads((tmp_path / "won" / "verdict.json").read_text())
    packed = verdict["compressed"]
    assert packed["codec"] == "bitdelta" and packed["bytes"] <= 2 * size < packed["whole_bytes"]
    assert packed["whole_bytes"] > 3.9 * packed["bytes"] / 2
    small, whole = packed["pair"]
    trials = {t["number"]: t for t in output("trials", "packed", "--home", home)}
    origins = [t["origin"] for t in trials.values()]
    assert trials[whole]["origin"] == f"originals:{small}" and len(origins) == 13
    assert len([o for o in origins if o.startswith("originals:")]) == 3 and verdict["trials"] == 10
    assert trials[small]["recipe"]["compress"]["codec"] == "bitdelta" and not trials[whole]["recipe"]["compress"]
    difference = trials[whole]["value"] - trials[small]["value"]
    assert packed["search_cost"] == pytest.approx(difference, abs=1e-12)
    # it is exported as it was scored, and its recipe builds it again
    to = tmp_path / "small"
    mergesearch("export", "packed", "--trial", str(small), "--home", home, "--to", to)
    mergesearch("merge", to / "recipe.json", "--to", tmp_path / "again")
    one, two = (load_file(folder / "model.safetensors") for folder in (to, tmp_path / "again"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert "of experts compressed by `bitdelta`" in (to / "README.md").read_text()


def test_a_limit_decides_by_itself(nano: Zoo, tmp_path: Path) -> None:
    size = (nano.base / "model.safetensors").stat().st_size
    refused = mergesearch("run", write(nano, tmp_path, size), "--home", tmp_path / "home", check=False)
    assert refused.returncode == 2 and not (tmp_path / "home").exists()
    assert "models.memory" in refused.stderr and "bitdelta packs them" in refused.stderr
    roomy = write(nano, tmp_path, 5 * size, compress="lowrank")
    checked = mergesearch("doctor", roomy, "--home", tmp_path / "home")
    assert "compressed" not in checked.stdout + checked.stderr, "as they are, base and three experts fit"
    tight = write(nano, tmp_path, 3 * size, compress={"codec": "lowrank", "settings": {"energy": 0.5}})
    checked = mergesearch("doctor", tight, "--home", tmp_path / "home")
    assert "compressed by lowrank" in " ".join((checked.stdout + checked.stderr).split())
