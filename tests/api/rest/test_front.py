"""The front of a study with several objectives: through the API, and as both kinds of `status` show it."""

import json
from pathlib import Path
from typing import Any

import pytest

from api.client.cli import remote_status
from api.show import show_status
from db.records import DocumentSet, Study
from db.store import Store, open_home
from evaluation.result import Part, Scored
from search.verdict import FrontPoint, Verdict
from tests.api.rest.conftest import VERDICT, Site, open_trial, served, told_trial
from tests.search.factories import LAYERS, create, fingerprints, leading, make_spec, scored

TASKS = [{"name": "t"}, {"name": "u"}]
PARTS: tuple[Part, ...] = ("search", "holdout")
POINTS = [(0.9, 0.0), (0.0, 0.9), (0.5, 0.5), (0.7, 0.8), (0.6, 0.8)]
FRONT = [3, 0, 1]  # the knee first


def both(first: float, second: float) -> Scored:
    found = scored(first)
    other = scored(second).scores[0].model_copy(update={"task": "u"})
    return found.model_copy(update={"scores": (*found.scores, other)})


def several(store: Store, points: list[tuple[float, float]] = POINTS) -> Study:
    """A running study with two objectives and a complete trial a point."""
    search = {"strategy": "tpe", "prune": "off"}
    spec = make_spec(objective="pareto", search=search, evaluation={"tasks": TASKS})
    setup = {"fingerprints": fingerprints(spec), "layer_count": LAYERS}
    parts = {(task["name"], part): DocumentSet.whole(range(8)) for task in TASKS for part in PARTS}
    study = store.studies.create(spec.name, spec.to_json(), spec.frozen_digest(), setup, parts)
    for number, point in enumerate(points):
        told_trial(store, study, number, both(*point))
    return study


def verdict_of(points: list[int]) -> dict[str, Any]:
    front = tuple(FrontPoint(trial=n, label="random", tasks={"t": 0.5, "u": 0.5}) for n in points)
    found = Verdict.model_validate(VERDICT | {"objective": "pareto"})
    return found.model_copy(update={"front": front}).model_dump(mode="json", by_alias=True)


def test_the_best_of_several_objectives_is_the_knee_with_its_front(any_site: Site) -> None:
    several(any_site.store)
    best = any_site.get("/v1/studies/test/best").json()
    assert best["number"] == 3 and best["recipe_digest"] == "d3"
    front = best["front"]
    assert [point["trial"] for point in front] == FRONT
    assert [point["recommended"] for point in front] == [True, False, False]
    assert front[0]["tasks"] == {"t": 0.7, "u": 0.8} and front[2]["tasks"] == {"t": 0.0, "u": 0.9}
    for point in front:
        shown = any_site.get(f"/v1/studies/test/trials/{point['trial']}").json()
        assert (point["recipe"], point["recipe_digest"]) == (shown["recipe"], shown["recipe_digest"])
        assert point["origin"] == shown["origin"]


def test_a_finished_study_s_front_is_its_verdict_s(any_site: Site) -> None:
    study = several(any_site.store)
    any_site.store.studies.finish(leading(any_site.store, study.id), verdict_of([2, 0]))
    best = any_site.get("/v1/studies/test/best").json()
    assert best["number"] == 2 and [point["trial"] for point in best["front"]] == [2, 0]


def test_who_breaks_a_constraint_is_not_on_the_front(site: Site) -> None:
    store = site.store
    study = several(store, [])
    for number, beyond in enumerate((0.1, 0.2)):
        lease = store.evaluations.claim(open_trial(store, study, number), "worker", 60)
        assert lease is not None and store.evaluations.finish(lease, both(0.2, 0.1 + number))
        store.trials.tell(leading(store, study.id), number, "complete", 0.2 + number, constraints=(beyond,))
    best = site.get("/v1/studies/test/best").json()
    assert best["front"] == [] and best["number"] == 0, "nobody meets it, and this one misses least"
    told_trial(store, study, 2, both(0.1, 0.1))
    best = site.get("/v1/studies/test/best").json()
    assert best["number"] == 2 and [point["trial"] for point in best["front"]] == [2]


def test_one_objective_has_no_front(any_site: Site) -> None:
    told_trial(any_site.store, create(any_site.store, make_spec()), 0, scored(0.5))
    assert any_site.get("/v1/studies/test/best").json()["front"] is None


def test_status_lists_the_front_while_the_study_lives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = open_home(tmp_path)
    study = several(store)
    show_status("test", tmp_path, as_json=False)
    out = capsys.readouterr().out
    assert "Front of 3" in out and "(knee, recommended)" in out and "0.7000" in out
    show_status("test", tmp_path, as_json=True)
    shown = json.loads(capsys.readouterr().out)["front"]
    assert [point["trial"] for point in shown] == FRONT and shown[0]["recommended"]
    assert shown[0]["recipe"]["schema"] == "mergesearch/recipe/v1"
    store.studies.finish(leading(store, study.id), verdict_of([2, 0]))
    show_status("test", tmp_path, as_json=True)
    assert [point["trial"] for point in json.loads(capsys.readouterr().out)["front"]] == [2, 0]


def test_a_services_status_lists_it_too(
    site: Site, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    several(site.store)
    monkeypatch.setenv("MERGESEARCH_KEY", site.keys["read"])
    with served(site) as address:
        remote_status("test", address, as_json=False)
        assert "Front of 3" in capsys.readouterr().out
        remote_status("test", address, as_json=True)
    shown = json.loads(capsys.readouterr().out)["front"]
    assert [point["trial"] for point in shown] == FRONT and shown[0]["recommended"]
