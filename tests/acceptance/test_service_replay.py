"""Controllers that are killed at random propose what an undisturbed one proposes."""

from random import Random

import pytest

from db.records import Study
from tests.acceptance.service import Service
from tests.acceptance.sound import finish_rehearsal

pytestmark = pytest.mark.acceptance
TRIALS, KILLS = 24, 3
STRATEGIES = ("tpe", "cmaes", "greedy_soup")


def sequence(service: Service, study: Study) -> list[str]:
    """The recipes of a study's trials by number, as digests."""
    evaluations = [service.store.evaluations.get(t.evaluation_id or 0) for t in service.store.trials.all(study.id)]
    return [evaluation.recipe_digest for evaluation in evaluations]


def begin(service: Service, prefix: str) -> list[Study]:
    """A study of each strategy; each has at most one trial open, and so one order of its trials."""
    return [service.study(f"{prefix}-{s}", TRIALS, strategy=s, parallel=1) for s in STRATEGIES]


def finish(service: Service, studies: list[Study]) -> list[list[str]]:
    """Wait for their ends; their sequences. A greedy soup ends when it has nothing left to add."""
    tpe, cmaes, soup = studies
    finish_rehearsal(service, tpe, TRIALS)
    finish_rehearsal(service, cmaes, TRIALS)
    service.wait_until(lambda: service.store.studies.by_id(soup.id).phase != "searching", "the soup is done")
    finish_rehearsal(service, soup, service.told(soup))
    return [sequence(service, study) for study in studies]


def test_a_controller_killed_at_random_proposes_the_same_sequence(service: Service) -> None:
    service.worker()
    with service.until_end(service.controller()):
        undisturbed = finish(service, begin(service, "undisturbed"))
    studies = begin(service, "disturbed")
    random, leader = Random(3), service.controller()
    for after in sorted(random.sample(range(3, 2 * TRIALS), KILLS)):
        following = service.controller(ready=False)
        service.wait_until(lambda: sum(map(service.told, studies)) >= after, "it has come so far")  # noqa: B023
        assert sum(map(service.told, studies)) < 2 * TRIALS + 5, "killed too late to show anything"
        leader.kill()
        leader = following
    with service.until_end(leader):
        assert finish(service, studies) == undisturbed
    assert len(undisturbed[2]) > 5, "the soup was searched for"
