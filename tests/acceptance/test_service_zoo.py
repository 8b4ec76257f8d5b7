"""Real models: the service gives what `mergesearch run` gives, undisturbed and with its processes killed to the end."""

from pathlib import Path
from typing import Any

import pytest

from db.records import Study
from search.study import load_study
from tests.acceptance.command import mergesearch, output
from tests.acceptance.service import LEASE_SECONDS, STEPS, Process, Service
from tests.acceptance.sound import assert_mirrored, assert_sound
from zoo.make import Zoo
from zoo.study import write_study

pytestmark = pytest.mark.acceptance
TRIALS = 12


@pytest.fixture(scope="module")
def file(nano: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose trials have one order: one is open at a time."""
    search, evaluation = {"trials": TRIALS, "parallel": 1, "seed": 5}, {"documents": 24, "holdout": 0.5}
    place = tmp_path_factory.mktemp("study") / "study.yaml"
    return write_study(nano, place, name="zoo", search=search, evaluation=evaluation)


@pytest.fixture(scope="module")
def embedded(file: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], Any]:
    """The values of the trials and the verdict when no service is there."""
    home = tmp_path_factory.mktemp("embedded")
    mergesearch("run", file, "--home", home, "--no-export")
    trials, status = output("trials", "zoo", "--home", home), output("status", "zoo", "--home", home)
    return [t["value"] for t in trials], status["verdict"]


@pytest.fixture(scope="module")
def undisturbed(open_service: Service, file: Path) -> Study:
    """The study, submitted to the service and finished."""
    with open_service.until_end(open_service.controller()), open_service.client("run") as client:
        answer = client.post("/v1/studies", json=load_study(file).to_json())
        assert answer.status_code == 201, answer.text
        study = open_service.store.studies.get("zoo")
        open_service.wait_until(
            lambda: open_service.store.studies.by_id(study.id).state == "finished", "it is finished"
        )
        assert_sound(open_service, study, TRIALS)
        assert_mirrored(open_service, study)
    return open_service.store.studies.get("zoo")


def assert_same(service: Service, study: Study, embedded: tuple[list[float], Any]) -> None:
    """The same values to the last bit, the same winner, the same numbers in the verdict."""
    values, verdict = embedded
    assert [t.value for t in assert_sound(service, study, TRIALS)] == values
    found = service.store.studies.by_id(study.id)
    assert found.state == "finished" and found.verdict == verdict


def test_the_service_gives_what_the_embedded_run_gives(
    open_service: Service, undisturbed: Study, embedded: tuple[list[float], Any]
) -> None:
    assert_same(open_service, undisturbed, embedded)


def test_killed_in_the_middle_of_scoring_and_at_each_step_of_the_end_it_is_the_same(
    open_service: Service, undisturbed: Study, embedded: tuple[list[float], Any]
) -> None:
    parts = open_service.store.studies.documents(undisturbed.id)
    victim = open_service.worker(rehearsal=False, fault="worker.scoring:4:stop")
    study = open_service.store.studies.create(
        *("disturbed", undisturbed.spec, undisturbed.frozen_digest, undisturbed.setup, parts),
    )
    first, *later = STEPS["the-end"]
    controllers = [open_service.controller(fault=f"controller.{first}", ready=False)]
    kill_while_scoring(open_service, study, victim)
    for step in later:
        open_service.wait_until(lambda: controllers[-1].is_over, "the controller dies")
        assert open_service.store.studies.by_id(study.id).state == "running", "it is not over yet"
        controllers.append(open_service.controller(fault=f"controller.{step}", ready=False))
    open_service.wait_until(lambda: controllers[-1].is_over, "the controller dies after the last step")
    assert [len(open_service.store.jobs.of_study(study.id, "judge"))] == [1]
    assert_same(open_service, study, embedded)
    with open_service.until_end(open_service.controller()):
        assert_mirrored(open_service, study)


def kill_while_scoring(service: Service, study: Study, victim: Process) -> None:
    """Kill a worker that stands still within an evaluation; see that it runs again in time."""
    service.wait_until(lambda: victim.is_frozen, "the worker is scoring")
    name = service.name_of(victim)
    held = next(e for e in service.store.evaluations.running(study.id) if (e.owner or "").startswith(name))
    victim.kill()
    evaluation = service.store.evaluations
    took = service.wait_until(lambda: evaluation.get(held.id).owner != held.owner, "it is taken back")
    took += service.wait_until(lambda: evaluation.get(held.id).state != "queued", "it runs again")
    assert took < LEASE_SECONDS + 5
    service.wait_until(lambda: evaluation.get(held.id).state == "done", "it is done")
    assert evaluation.get(held.id).attempts == 2
