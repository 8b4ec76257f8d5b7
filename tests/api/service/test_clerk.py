"""The clerk: a submission is checked in full and created once, a verdict and an export survive a killed clerk."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from api.choice import exportable
from api.forms import Form
from api.service.clerk import Clerk, ClerkSettings
from api.winner import export_trial, export_winner
from db.records import Job, Study
from db.store import Store
from db.trials import NewTrial
from merging.errors import Conflict, NotFound
from merging.models import ModelSet
from merging.recipe import GroupMerge, Recipe
from search.study import load_study
from tests.api.rest.conftest import VERDICT
from tests.search.factories import leading, scored
from zoo.make import Zoo
from zoo.study import write_study

KINDS = ("check", "judge", "export")


@pytest.fixture
def clerk(store: Store, tmp_path: Path) -> Iterator[Clerk]:
    yield Clerk(store, ClerkSettings("clerk", store.url, KINDS, tmp_path / "exports", "text"))


def spec(zoo: Zoo, tmp_path: Path, **changes: Any) -> dict[str, Any]:
    path = tmp_path / "study.yaml"
    write_study(zoo, path)
    return load_study(path).to_json() | changes


def done(store: Store, clerk: Clerk, kind: str, content: dict[str, Any], study: Study | None = None) -> Job:
    """The job after a clerk has done it."""
    job = store.jobs.add(kind, content, study_id=study.id if study else None)
    assert clerk.once(KINDS) and not clerk.once(KINDS)
    return store.jobs.get(job.id, kind)


def test_a_sound_submission_becomes_a_study(nano: Zoo, store: Store, clerk: Clerk, tmp_path: Path) -> None:
    job = done(store, clerk, "check", {"spec": spec(nano, tmp_path)})
    assert job.state == "done" and job.result is not None
    study = store.studies.get(job.result["study"])
    assert study.state == "running" and study.setup["layer_count"] > 0
    assert {part for _, part in store.studies.documents(study.id)} == {"search", "holdout"}


def test_a_second_study_of_the_name_is_refused_and_a_repeated_check_is_not(
    nano: Zoo, store: Store, clerk: Clerk, tmp_path: Path
) -> None:
    content = {"spec": spec(nano, tmp_path)}
    first = store.jobs.add("check", content)
    lease = store.jobs.claim_next(("check",), "killed", seconds=-1)
    assert lease is not None
    clerk._check(lease)  # and killed before the job was done
    assert clerk.once(KINDS)
    assert store.jobs.get(first.id, "check").state == "done"
    again = done(store, clerk, "check", content)
    assert again.state == "failed" and again.problem is not None
    assert again.problem["status"] == 409 and "exists already" in again.problem["detail"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"search": {"strategy": "tpe", "trials": 2}}, "search.trials: 2 is fewer than"),
        ({"space": {"methods": ["magic"]}}, "space.methods"),
    ],
)
def test_what_cannot_work_is_refused_with_key_and_remedy_and_creates_nothing(
    change: dict[str, Any], words: str, nano: Zoo, store: Store, clerk: Clerk, tmp_path: Path
) -> None:
    job = done(store, clerk, "check", {"spec": spec(nano, tmp_path, **change)})
    assert job.state == "failed" and job.problem is not None
    assert words in job.problem["detail"] and job.problem["remedy"] and store.studies.all() == ()


def test_a_pickled_checkpoint_is_refused(nano: Zoo, store: Store, clerk: Clerk, tmp_path: Path) -> None:
    content = spec(nano, tmp_path)
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text((Path(content["models"]["base"]) / "config.json").read_text())
    (pickled / "pytorch_model.bin").write_bytes(b"\x80\x04K\x01.")
    content["models"]["base"] = str(pickled)
    job = done(store, clerk, "check", {"spec": content})
    assert job.problem is not None and job.problem["key"] == "models.base"
    assert "safetensors" in job.problem["detail"] and store.studies.all() == ()


def test_a_fault_says_nothing_internal(store: Store, clerk: Clerk, tmp_path: Path) -> None:
    job = done(store, clerk, "check", {"spec": ["secret"], "oops": object.__name__})
    assert job.problem is not None and job.state == "failed"
    broken = done(store, clerk, "check", {"nothing": "secret"})
    assert broken.problem is not None and "secret" not in str(broken.problem) and broken.problem["status"] == 500


def test_an_export_is_written_once_with_sizes_and_checksums(
    nano: Zoo, store: Store, clerk: Clerk, tmp_path: Path
) -> None:
    checked = done(store, clerk, "check", {"spec": spec(nano, tmp_path)})
    assert checked.result is not None
    study = store.studies.get(checked.result["study"])
    with pytest.raises(Conflict, match="is running and has no verdict"):
        exportable(store, study, None)
    with pytest.raises(NotFound, match="no trial 0"):
        exportable(store, study, 0)
    one_trial(store, study)
    job = done(store, clerk, "export", {"trial": 0}, study)
    assert job.state == "done" and job.result is not None
    folder = Path(job.result["folder"])
    assert folder.is_relative_to(tmp_path / "exports")
    named = {file["name"]: file for file in job.result["files"]}
    assert {"model.safetensors", "recipe.json", "README.md", "config.json"} <= set(named)
    for name, file in named.items():
        content = (folder / name).read_bytes()
        assert (file["bytes"], file["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert f"--include_path {study.spec['evaluation']['include_path']}" in (folder / "README.md").read_text()


def test_forms_are_written_beside_each_other_and_opened_as_experts(
    nano: Zoo, store: Store, clerk: Clerk, tmp_path: Path
) -> None:
    checked = done(store, clerk, "check", {"spec": spec(nano, tmp_path)})
    assert checked.result is not None
    study = store.studies.get(checked.result["study"])
    one_trial(store, study)
    forms: dict[str, dict[str, float]] = {"full": {}, "lora": {"rank": 4}, "sparse": {"density": 0.5}, "xor": {}}
    folders = {}
    for form, settings in forms.items():
        job = done(store, clerk, "export", {"trial": 0, "as": form, "settings": settings}, study)
        assert job.state == "done" and job.result is not None, job.problem
        folders[form] = Path(job.result["folder"])
        assert form == "full" or folders[form].name.endswith(f"-{form}")
        assert f"compressed by `{form}`" in (folders[form] / "README.md").read_text() or form in ("full", "lora")
    assert json.loads((folders["sparse"] / "delta.json").read_text())["settings"]["density"] == 0.5
    assert json.loads((folders["lora"] / "adapter_config.json").read_text())["r"] <= 4
    models = ModelSet.open(Path(study.spec["models"]["base"]), folders)
    for name in models.base.names:
        _, tensors = models.stack(name)
        found = dict(zip(models.names, tensors, strict=True))
        assert torch.equal(found["xor"], found["full"]), name


def test_a_killed_clerks_export_in_another_form_is_taken_as_it_is(
    nano: Zoo, store: Store, clerk: Clerk, tmp_path: Path
) -> None:
    checked = done(store, clerk, "check", {"spec": spec(nano, tmp_path)})
    assert checked.result is not None
    study = store.studies.get(checked.result["study"])
    one_trial(store, study)
    store.jobs.add("export", {"trial": 0, "as": "xor", "settings": {}}, study_id=study.id)
    lease = store.jobs.claim_next(("export",), "killed", seconds=-1)
    assert lease is not None
    written = clerk._export(lease)  # and killed before the job was done
    before = (Path(written["folder"]) / "delta.safetensors").stat()
    assert clerk.once(KINDS)
    job = store.jobs.get(lease.job.id, "export")
    after = (Path(written["folder"]) / "delta.safetensors").stat()
    assert job.result == written and (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_folder_of_another_form_is_not_taken_for_the_winners_checkpoint(
    nano: Zoo, store: Store, clerk: Clerk, tmp_path: Path
) -> None:
    checked = done(store, clerk, "check", {"spec": spec(nano, tmp_path)})
    assert checked.result is not None
    study = store.studies.get(checked.result["study"])
    one_trial(store, study)
    store.studies.finish(leading(store, study.id), VERDICT | {"winner": 0})
    study = store.studies.by_id(study.id)
    trial = exportable(store, study, None)
    for form in (Form("lora"), Form("xor")):
        place = tmp_path / form.name
        export_trial(store, study, trial, place, form=form)
        found = export_winner(store, study, place)
        assert found == tmp_path / f"{form.name}-2" and (found / "model.safetensors").exists()
        assert export_winner(store, study, place) == found


def one_trial(store: Store, study: Study) -> None:
    """The first expert alone, scored."""
    models = study.spec["models"]
    experts = {e["name"]: e["path"] for e in models["experts"]}
    weights = dict.fromkeys(experts, 0.0) | {next(iter(experts)): 1.0}
    group = GroupMerge(layers=(0, study.setup["layer_count"]), method="linear", weights=weights)
    recipe = Recipe(schema_="mergesearch/recipe/v1", base=models["base"], experts=experts, groups=(group,))
    lead = leading(store, study.id)
    trial = store.trials.add(lead, NewTrial(0, "test", {}, recipe, recipe.digest(study.setup["fingerprints"])))
    lease = store.evaluations.claim(trial.evaluation_id or 0, "me", 60)
    assert lease is not None
    documents = store.studies.documents(study.id)
    task = study.spec["evaluation"]["tasks"][0]["name"]
    one = scored(0.5).scores[0]
    ids = documents[task, "search"].at(0)
    score = one.model_copy(update={"task": task, "documents": ids, "items": (0.5,) * len(ids)})
    assert store.evaluations.finish(lease, scored(0.5).model_copy(update={"scores": (score,)}))
    store.trials.tell(lead, 0, "complete", 0.5)


def test_a_folder_of_exports_that_cannot_be_written_is_nobodys_bad_request(
    nano: Zoo, store: Store, clerk: Clerk, tmp_path: Path
) -> None:
    (tmp_path / "exports").write_text("a file, where the folder should be")
    checked = done(store, clerk, "check", {"spec": spec(nano, tmp_path)})
    assert checked.result is not None
    study = store.studies.get(checked.result["study"])
    one_trial(store, study)
    job = done(store, clerk, "export", {"trial": 0}, study)
    assert job.state == "failed" and job.problem is not None and job.problem["status"] == 500
    assert "MERGESEARCH_EXPORTS" in job.problem["detail"] and str(tmp_path) not in job.problem["detail"]
