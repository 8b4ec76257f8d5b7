"""The embedded pool with real processes, real models and real tasks; workers are killed."""

import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from api.creating import create_or_resume
from api.prepared import Fingerprinted, Prepared, prepare
from db.records import Study
from db.store import Store
from evaluation.result import Infeasible, Scored
from evaluation.wanted import Wanted
from merging.recipe import Recipe
from search.study import load_study
from workers.benches import DeviceLost
from workers.evaluator import attempt, evaluate
from workers.model_bench import ModelBench, ModelBenches
from workers.pool import Pool, WorkersBroken
from zoo.make import Zoo
from zoo.study import write_study

DOCUMENTS = {"documents": 24, "holdout": 0.5}


@pytest.fixture
def prepared(nano: Zoo, tmp_path: Path) -> Prepared:
    path = write_study(nano, tmp_path / "study.yaml", name="pool", evaluation=DOCUMENTS)
    return prepare(load_study(path), Fingerprinted(None))


@pytest.fixture
def study(prepared: Prepared, store: Store) -> Study:
    return create_or_resume(prepared, store)


def want(store: Store, study: Study, prepared: Prepared, count: int) -> list[int]:
    """Queue the first starts for scoring."""
    fingerprints = study.setup["fingerprints"]
    recipes = [start.recipe for start in prepared.starts[:count]]
    return [store.evaluations.want(study.id, r, r.digest(fingerprints), "search")[0].id for r in recipes]


def score(bench: ModelBench, recipe: Recipe, wanted: Wanted) -> Scored | Infeasible:
    """What that bench makes of it."""
    return evaluate(bench, recipe, wanted, lambda *a: None)


def finish(pool: Pool, store: Store, study: Study) -> None:
    while store.evaluations.unfinished(study.id):
        pool.wait(60)


def test_what_is_announced_gets_done_and_equals_a_bench_of_our_own(
    prepared: Prepared, study: Study, store: Store, tmp_path: Path
) -> None:
    ids = want(store, study, prepared, 3)
    with Pool(store, study.id, ("cpu", "cpu"), tmp_path / "logs", lambda *a: None) as pool:
        pool.announce(ids)
        finish(pool, store, study)
    bench = ModelBenches(store, "cpu").bench(study.id)
    for evaluation_id, start in zip(ids, prepared.starts, strict=False):
        theirs, ours = (
            store.evaluations.get(evaluation_id).outcome,
            score(bench, start.recipe, prepared.suite.wanted("search")),
        )
        assert isinstance(theirs, Scored) and isinstance(ours, Scored)
        assert {s.task: s.items for s in theirs.scores} == {s.task: s.items for s in ours.scores}


def test_a_killed_worker_costs_time_and_nothing_else(
    prepared: Prepared, study: Study, store: Store, tmp_path: Path
) -> None:
    ids = want(store, study, prepared, 4)
    with Pool(store, study.id, ("cpu",), tmp_path / "logs", lambda *a: None) as pool:
        while store.evaluations.get(ids[0]).state != "done":
            pool.announce(ids)
            pool.wait(60)
        (victim,) = pool.processes
        os.kill(victim, signal.SIGKILL)
        finish(pool, store, study)
        assert pool.processes != (victim,)
    outcomes = [store.evaluations.get(i).outcome for i in ids]
    assert all(isinstance(o, Scored) for o in outcomes)


def test_workers_that_cannot_start_are_an_error_not_a_loop(
    prepared: Prepared, study: Study, store: Store, tmp_path: Path
) -> None:
    ids = want(store, study, prepared, 1)
    with (
        pytest.raises(WorkersBroken, match="nonsense"),
        Pool(store, study.id, ("nonsense",), tmp_path / "logs", lambda *a: None) as pool,
    ):
        pool.announce(ids)
        finish(pool, store, study)


def test_a_candidate_that_overflows_is_infeasible_and_the_next_one_is_right(
    nano: Zoo, store: Store, tmp_path: Path
) -> None:
    path = write_study(with_a_huge_expert(nano, tmp_path / "zoo"), tmp_path / "study.yaml", evaluation=DOCUMENTS)
    prepared = prepare(load_study(path), Fingerprinted(None))
    bench = ModelBenches(store, "cpu").bench(create_or_resume(prepared, store).id)
    good = prepared.starts[1].recipe
    wanted = prepared.suite.wanted("search")
    before = score(bench, good, wanted)
    groups = tuple(g.model_copy(update={"weights": dict.fromkeys(g.weights, 10.0)}) for g in good.groups)
    assert score(bench, good.model_copy(update={"groups": groups}), wanted).kind == "infeasible"
    after = score(bench, good, wanted)
    assert isinstance(before, Scored) and isinstance(after, Scored)
    assert [s.items for s in after.scores] == [s.items for s in before.scores]


def with_a_huge_expert(zoo: Zoo, folder: Path) -> Zoo:
    """A copy of the zoo in which one weight of one expert is as large as a float can be."""
    shutil.copytree(zoo.folder, folder)
    file = folder / "experts" / "add" / "model.safetensors"
    tensors = load_file(file)
    tensors["lm_head.weight"][0, 0] = 1e38
    save_file(tensors, file, {"format": "pt"})
    places = {name: folder / "experts" / name for name in zoo.experts}
    return replace(zoo, folder=folder, base=folder / "base", experts=places, tasks=zoo.tasks)


def test_an_unexpected_fault_is_a_result_with_its_reason(prepared: Prepared, study: Study, store: Store) -> None:
    evaluation_id = want(store, study, prepared, 1)[0]
    lease = store.evaluations.claim(evaluation_id, "me", 60)
    assert lease is not None

    def broken(*_: object) -> None:
        raise RuntimeError("no such luck")

    outcome = attempt(ModelBenches(store, "cpu"), lease, lambda device: store.evaluations.wanted(lease), broken)
    assert outcome.kind == "failed" and "no such luck" in outcome.why


def test_a_lost_device_is_not_the_candidates_fault(prepared: Prepared, study: Study, store: Store) -> None:
    lease = store.evaluations.claim(want(store, study, prepared, 1)[0], "me", 60)
    assert lease is not None

    def lost(*_: object) -> None:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(DeviceLost, match="illegal memory access"):
        attempt(ModelBenches(store, "cpu"), lease, lambda device: store.evaluations.wanted(lease), lost)
