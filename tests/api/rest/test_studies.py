"""What is shown of studies, trials, workers and methods, and how studies are paused, resumed and cancelled."""

import math
from typing import Any

import pytest

from db.records import Step
from evaluation.result import Failed
from merging.catalog import CATALOG
from tests.api.rest.conftest import VERDICT, Site, a_study, assert_problem, finished, open_trial, told_trial
from tests.search.factories import leading, scored

OF_A_STUDY = ("", "/trials", "/trials/0", "/best", "/verdict", "/events", "/exports")


@pytest.mark.parametrize("path", OF_A_STUDY)
@pytest.mark.parametrize("name", ["nobody", "no%00body", "%2e%2e", "a%20b", "x" * 300])
def test_an_unknown_study_is_said_so(any_site: Site, name: str, path: str) -> None:
    assert_problem(any_site.get(f"/v1/studies/{name}{path}"), 404, "not-found")


def test_an_unknown_study_names_those_there_are(site: Site) -> None:
    a_study(site.store, "mine")
    assert_problem(site.get("/v1/studies/yours"), 404, "not-found", "'yours'", "mine")


def test_a_finished_study_is_shown(any_site: Site) -> None:
    study = finished(any_site.store)
    shown = any_site.get("/v1/studies/test").json()
    assert shown["state"] == "finished" and shown["finished_at"] > shown["created_at"]
    counts = {"open": 0, "complete": 2, "pruned": 0, "infeasible": 1, "failed": 0, "cancelled": 0}
    assert shown["trials"] == counts
    assert shown["best"] == {"number": 1, "value": 0.75, "origin": "random"}
    assert shown["spec"] == study.spec and shown["workers"] == shown["running"] == []


def test_a_study_says_how_far_its_experts_are_compressed(any_site: Site) -> None:
    store = any_site.store
    plain = a_study(store)
    assert any_site.get("/v1/studies/test").json()["compressed"] is None
    sizes = {"bytes": 3, "whole_bytes": 4, "bits_per_parameter": 1.5}
    packed = {"by": {"codec": "bitdelta", "settings": {"rows": 0}}, **sizes, "fingerprints": {"base": "f"}}
    store.studies.create("packed", plain.spec, "other", plain.setup | {"compressed": packed}, {})
    shown = any_site.get("/v1/studies/packed").json()["compressed"]
    assert shown == {"by": {"codec": "bitdelta", "settings": {"rows": 0.0}}, **sizes}


def test_a_running_study_shows_workers_and_progress(any_site: Site) -> None:
    store = any_site.store
    study = a_study(store)
    store.studies.enter(leading(store, study.id), "searching")
    detail = {"pools": ["default"], "device": "cuda:0", "device_name": "H", "memory_used": 1, "memory_total": 2}
    store.processes.beat("w1", "worker", detail | {"evaluation": 7})
    store.processes.beat("w2", "worker", {"pools": ["other"]})
    lease = store.evaluations.claim(open_trial(store, study, 0), "w1", 60)
    open_trial(store, study, 1)
    assert lease is not None
    before = any_site.get("/v1/studies/test").json()["running"]
    assert store.evaluations.progress(lease, 0, 8, measuring=(1, 3))
    (measuring,) = any_site.get("/v1/studies/test").json()["running"]
    assert store.evaluations.progress(lease, 3, 8, 1234.5)
    shown = any_site.get("/v1/studies/test").json()
    assert shown["phase"] == "searching" and [w["name"] for w in shown["workers"]] == ["w1"]
    running = {"evaluation": lease.evaluation_id, "trial": 0, "part": "search", "rung": 0, "worker": "w1", "attempt": 1}
    artefacts = {"artefacts_done": None, "artefacts_total": None}
    progress = {"documents_done": 3, "documents_total": 8, "tokens_per_second": 1234.5, **artefacts}
    assert (measuring["progress"]["artefacts_done"], measuring["progress"]["artefacts_total"]) == (1, 3)
    assert before == [running | {"progress": None}] and shown["running"] == [running | {"progress": progress}]
    trial = any_site.get("/v1/studies/test/trials/0").json()
    assert trial["state"] == "open" and trial["progress"] == progress and trial["worker"] == "w1"
    assert trial["scores"] is None and trial["attempts"] == 1
    workers = any_site.get("/v1/workers").json()
    assert [w["name"] for w in workers] == ["w1", "w2"] and workers[0]["evaluation"] == 7
    assert workers[1]["device"] is None and workers[1]["stopping"] is False


def test_lists_come_in_parts(any_site: Site) -> None:
    names = [f"s{number}" for number in range(5)]
    for name in names:
        a_study(any_site.store, name)
    assert walk(any_site, "/v1/studies?limit=2", "name") == [names[:2], names[2:4], names[4:]]
    assert walk(any_site, "/v1/studies?limit=5", "name") == [names]
    study = any_site.store.studies.get("s0")
    for number in range(4):
        told_trial(any_site.store, study, number, scored(0.5) if number % 2 else Failed(why="broke"))
    assert walk(any_site, "/v1/studies/s0/trials?limit=3", "number") == [[0, 1, 2], [3]]
    assert walk(any_site, "/v1/studies/s0/trials?limit=1&state=complete", "number") == [[1], [3]]


def walk(site: Site, path: str, key: str) -> list[list[Any]]:
    parts, where = [], path
    while True:
        part = site.get(where).json()
        parts.append([item[key] for item in part["items"]])
        if part["next"] is None:
            return parts
        where = f"{path}&cursor={part['next']}"


@pytest.mark.parametrize("cursor", ["x", "c3R1ZGllczp4", "%00", "dHJpYWxzOjE=", "c3R1ZGllczo5OTk5OTk5OTk5OTk5OTk5OTk5"])
def test_a_cursor_that_is_none_is_refused(any_site: Site, cursor: str) -> None:
    problem = assert_problem(any_site.get(f"/v1/studies?cursor={cursor}"), 422, "invalid-input", "cursor")
    assert problem["key"] == "cursor" and "next" in problem["remedy"]


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/v1/studies?limit=0", "limit"),
        ("/v1/studies?limit=1000", "limit"),
        ("/v1/studies/test/trials?state=odd", "state"),
        ("/v1/studies/test/trials/x", "number"),
        ("/v1/studies/test/trials/99999999999", "number"),
        ("/v1/studies/test/events?after=-1", "after"),
        ("/v1/submissions/99999999999", "submission"),
        ("/v1/exports/x", "export"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_in_one_sentence(site: Site, path: str, key: str) -> None:
    a_study(site.store)
    assert assert_problem(site.get(path), 422, "invalid-input", key)["key"] == key


def test_a_trial_is_shown_with_recipe_and_scores(any_site: Site) -> None:
    finished(any_site.store)
    best = any_site.get("/v1/studies/test/best").json()
    assert best == any_site.get("/v1/studies/test/trials/1").json() | {"front": None}
    assert best["number"] == 1 and best["value"] == 0.75 and best["params"] == {"w": 0.1}
    assert best["recipe"]["schema"] == "mergesearch/recipe/v1" and best["recipe_digest"] == "d1"
    assert best["scores"] == {"t": {"metric": "acc", "value": 0.75, "stderr": None, "documents": 8}}
    assert (best["tokens"], best["build_seconds"], best["score_seconds"], best["device"]) == (10, 0.1, 0.2, "cpu")
    failed = any_site.get("/v1/studies/test/trials/2").json()
    assert failed["state"] == "infeasible" and failed["why"] == "NaN in the head" and failed["scores"] is None
    assert_problem(any_site.get("/v1/studies/test/trials/3"), 404, "not-found", "no trial 3; it has 3")


def test_a_pruned_trial_is_shown_with_its_way(any_site: Site) -> None:
    study = a_study(any_site.store)
    open_trial(any_site.store, study, 0)
    lead = leading(any_site.store, study.id)
    any_site.store.trials.promote(lead, 0, 1, Step(0, 4, 0.5))
    step = Step(1, 8, 0.25)
    any_site.store.trials.tell(lead, 0, "pruned", None, "behind", estimate=0.3, constraints=(0.0,), step=step)
    shown = any_site.get("/v1/studies/test/trials/0").json()
    assert (shown["state"], shown["value"], shown["why"], shown["rung"]) == ("pruned", None, "behind", 1)
    assert shown["steps"] == [{"rung": 0, "documents": 4, "value": 0.5}, {"rung": 1, "documents": 8, "value": 0.25}]
    assert (shown["estimate"], shown["constraints"]) == (0.3, [0.0])
    assert any_site.get("/v1/studies/test/trials?state=pruned").json()["items"][0]["number"] == 0
    assert any_site.get("/v1/studies/test").json()["trials"]["pruned"] == 1


def test_the_verdict_is_shown_once_there_is_one(any_site: Site) -> None:
    a_study(any_site.store, "young")
    assert_problem(any_site.get("/v1/studies/young/verdict"), 404, "not-found", "is running", "no verdict")
    assert_problem(any_site.get("/v1/studies/young/best"), 404, "not-found", "no complete trial yet")
    finished(any_site.store)
    shown = any_site.get("/v1/studies/test/verdict").json()
    assert {key: shown[key] for key in VERDICT} == VERDICT and shown["exhausted"] is False and shown["missing"] == {}


def test_a_study_is_paused_resumed_and_cancelled(any_site: Site) -> None:
    a_study(any_site.store)
    for action, state in (("pause", "paused"), ("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        answer = any_site.post(f"/v1/studies/test/{action}")
        assert answer.status_code == 200 and answer.json()["state"] == state
    assert any_site.post("/v1/studies/test/cancel").json()["state"] == "cancelled"
    assert_problem(any_site.post("/v1/studies/test/resume"), 409, "conflict", "is cancelled")
    assert_problem(any_site.post("/v1/studies/nobody/pause"), 404, "not-found")


def test_every_method_is_listed(site: Site) -> None:
    methods = site.get("/v1/methods").json()
    assert [m["name"] for m in methods] == list(CATALOG)
    ties = next(m for m in methods if m["name"] == "ties")
    assert ties["recommended"] and ties["paper"].startswith("https://") and ties["fewest_experts"] == 1
    density = next(p for p in ties["parameters"] if p["name"] == "density")
    assert (density["low"], density["high"], density["maximum"]) == (0.05, 1.0, 1.0) and density["scope"] == "group"
    assert all(p["minimum"] is None or math.isfinite(p["minimum"]) for m in methods for p in m["parameters"])
