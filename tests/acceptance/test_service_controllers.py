"""Controllers are killed at every step, frozen, and run against each other: the study is the same in the end."""

import re
from collections.abc import Sequence
from pathlib import Path

import psycopg
import pytest

from db.records import Study
from tests.acceptance.service import STEPS, Process, Service
from tests.acceptance.sound import assert_told_once, finish_rehearsal, written

pytestmark = pytest.mark.acceptance
TRIALS = 16
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", autouse=True)
def worker(service: Service) -> Process:
    """A worker that nothing happens to."""
    return service.worker()


def wait_until_led(service: Service, study: Study) -> None:
    """Until some controller leads the study."""
    service.wait_until(lambda: study.id not in service.store.leads.vacant(), "somebody leads")


def leader(service: Service, study: Study, among: Sequence[Process]) -> Process | None:
    """Which of these leads the study, as its row says."""
    with psycopg.connect(service.database_url.replace("+psycopg", "")) as connection:
        row = connection.execute("select leader from merge_study where id = %s", [study.id]).fetchone()
    return next((p for p in among if row and row[0] and row[0] == service.name_of(p)), None)


def test_every_fault_point_of_a_controller_is_among_the_steps() -> None:
    """Those of `the-end` need a verdict: test_service_zoo has them.

    `rescoring` needs trials too close to tell apart, which no rehearsal has: tests/search/test_race.py has it. Nor has
    one compressed experts, of which `originals` is: tests/search/test_originals.py and test_compressed.py have it.
    """
    source = "".join(path.read_text() for path in (ROOT / "search").rglob("*.py"))
    there = set(re.findall(r'fault_point\("controller\.(\w+)"\)', source))
    assert there - {"rescoring", "originals"} == {step.partition(":")[0] for steps in STEPS.values() for step in steps}


@pytest.mark.parametrize("group", ["a-round", "a-proposal", "a-result"])
def test_controllers_killed_at_each_step_of_the_loop(service: Service, group: str) -> None:
    study = service.study(f"steps-of-{group}", TRIALS)
    for step in STEPS[group]:
        service.wait_until(lambda: study.id in service.store.leads.vacant(), "nobody leads any more")
        victim = service.controller(fault=f"controller.{step}", ready=False)
        service.wait_until(lambda: victim.is_over, f"the controller dies at {step}")  # noqa: B023 - called here
        service.wait_until(lambda: not victim.group(), "its clerks end with it")  # noqa: B023
        assert service.told(study) < TRIALS
    with service.until_end(service.controller()):
        finish_rehearsal(service, study, TRIALS)


def test_controllers_killed_while_trials_go_on_to_more_documents_lose_none(service: Service) -> None:
    study = service.race("steps-of-a-race", TRIALS)
    for step in STEPS["a-race"]:
        service.wait_until(lambda: study.id in service.store.leads.vacant(), "nobody leads any more")
        victim = service.controller(fault=f"controller.{step}", ready=False)
        service.wait_until(lambda: victim.is_over, f"the controller dies at {step}")  # noqa: B023 - called here
        service.wait_until(lambda: not victim.group(), "its clerks end with it")  # noqa: B023
        assert service.told(study) < TRIALS
    with service.until_end(service.controller()):
        service.wait_until_told(study, TRIALS)
    found = service.store.trials.all(study.id)
    service.store.studies.cancel(study.name)
    assert {t.state for t in found} == {"complete", "pruned"}
    assert sorted(t.told_order or 0 for t in found) == list(range(1, TRIALS + 1))
    assert_told_once(service, study, found)
    for trial in found:  # each rung once, from the first on
        assert [step.rung for step in trial.steps] == list(range(len(trial.steps)))
    assert [id_ for id_, n in written(service, study).items() if n > 1] == []


def test_of_two_controllers_one_leads_and_when_it_is_killed_the_other_does(service: Service) -> None:
    both = [service.controller(ready=False), service.controller(ready=False)]
    with service.until_end(*both):
        service.wait_until(lambda: all(map(service.name_of, both)), "both are there")
        studies = [service.study(f"both-{i}", TRIALS, seed=i) for i in range(2)]
        for study in studies:
            wait_until_led(service, study)
        service.wait_until_told(studies[0], 6)
        victim = leader(service, studies[0], both)
        assert victim is not None
        victim.kill()
        for study in studies:
            finish_rehearsal(service, study, TRIALS)


@pytest.mark.parametrize("point", ["proposed:2", "telling:6"])
def test_a_controller_frozen_past_its_lead_writes_nothing_once_thawed(service: Service, point: str) -> None:
    frozen = service.controller(fault=f"controller.{point}:stop")
    study = service.study(f"frozen-{point.replace(':', '-')}", TRIALS)
    service.wait_until(lambda: frozen.is_frozen, "the controller has come to that point")
    frozen.freeze()
    told = service.told(study)
    other = service.controller()
    with service.until_end(frozen, other):
        service.wait_until_told(study, told + 3)
        frozen.thaw()
        service.wait_until(lambda: frozen.said("another leads it now", study.name), "it is refused")
        finish_rehearsal(service, study, TRIALS)
        assert not frozen.is_over, "it stands by for other studies"
