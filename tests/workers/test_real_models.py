"""A worker of the service with real models and tasks: what it finds is what a bench of our own finds."""

from pathlib import Path

import pytest

from api.prepared import Fingerprinted, prepare
from db.faults import VARIABLE as FAULT
from evaluation.result import Failed, Scored
from merging.artefacts.place import VARIABLE
from merging.artefacts.shelf import MANIFEST
from search.study import load_study
from tests.workers.service import LEASE_SECONDS, Service
from tests.workers.test_benches import make, whole
from tests.workers.test_measuring import a_study, a_trial, half_made
from workers.evaluator import evaluate
from workers.model_bench import ModelBenches
from zoo.make import Zoo


def test_a_worker_scores_real_models_and_outlives_a_study_it_cannot_open(
    nano: Zoo, service: Service, tmp_path: Path
) -> None:
    store = service.store
    good = make(nano, store, tmp_path, "good")
    spec = {**good.spec, "models": {**good.spec["models"], "base": str(tmp_path / "nowhere")}}
    others = {"fingerprints": dict.fromkeys(good.setup["fingerprints"], "of other models")}
    bad = store.studies.create("bad", spec, "bad", {**good.setup, **others}, {})
    recipes = [s.recipe for s in prepare(load_study(tmp_path / "good.yaml"), Fingerprinted(None)).starts[:2]]
    lost, *ids = [
        store.evaluations.want(study.id, recipe, recipe.digest(good.setup["fingerprints"]), "search")[0].id
        for study, recipe in ((bad, recipes[0]), *((good, recipe) for recipe in recipes))
    ]
    with service.worker(rehearsal=None, lease_seconds=30.0, refusal_seconds=0.2, threads=1):
        service.until(lambda: service.done([lost, *ids]), "all are over", 120)
        (process,) = store.processes.alive("worker")
    assert process.detail["device_name"] == "cpu"
    outcome = service.get(lost).outcome
    assert isinstance(outcome, Failed) and "nowhere" in outcome.why
    bench = ModelBenches(store, "cpu").bench(good.id)
    for evaluation in map(service.get, ids):
        ours = evaluate(bench, evaluation.recipe, whole(store, good), lambda *a: None)
        assert isinstance(evaluation.outcome, Scored) and isinstance(ours, Scored)
        assert {s.task: s.items for s in evaluation.outcome.scores} == {s.task: s.items for s in ours.scores}
        assert evaluation.outcome.reused == ours.reused == 0


def test_what_a_worker_was_measuring_when_it_hung_is_measured_by_the_next(
    nano: Zoo, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefacts = tmp_path / "artefacts"
    monkeypatch.setenv(VARIABLE, str(artefacts))
    study, recipe = a_study(nano, service.store, tmp_path, "hangs", "fisher")
    id_ = a_trial(service.store, study, recipe)
    monkeypatch.setenv(FAULT, "worker.measuring:1:stop")
    with service.worker(rehearsal=None, lease_seconds=LEASE_SECONDS, threads=1):
        service.until(lambda: is_frozen(service.at_work(id_)), "it hangs while it measures", 120)
        assert half_made(artefacts) and not list(artefacts.rglob(MANIFEST))
    monkeypatch.delenv(FAULT)
    with service.worker(rehearsal=None, lease_seconds=30.0, threads=1):
        service.until(lambda: service.done([id_]), "another does it", 120)
    assert isinstance(service.get(id_).outcome, Scored) and service.get(id_).attempts == 2
    assert half_made(artefacts) == [] and list(artefacts.rglob(MANIFEST))


def is_frozen(pid: int) -> bool:
    """Whether the process was stopped."""
    return pid > 0 and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
