"""A worker of the service with real models and tasks: what it finds is what a bench of our own finds."""

from pathlib import Path

from api.embedded import Fingerprinted, prepare
from evaluation.result import Failed, Scored
from search.study import load_study
from tests.workers.service import Service
from tests.workers.test_benches import make, whole
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
