"""Studies, trials and leased evaluations: what the rows promise when several processes want the same."""

import multiprocessing
from pathlib import Path

import pytest

from db.evaluations import MAX_ATTEMPTS
from db.records import Study
from db.store import Store, open_home
from db.trials import NewTrial
from evaluation.result import Failed, Infeasible, Scored
from merging.errors import Conflict, NotFound
from merging.recipe import GroupMerge, Recipe
from tests.search.factories import create, make_spec, scored


def recipe(weight: float = 1.0) -> Recipe:
    group = GroupMerge(layers=(0, 4), method="task_arithmetic", weights={"a": weight})
    return Recipe(schema_="mergesearch/recipe/v1", base="base", experts={"a": "a"}, groups=(group,))


@pytest.fixture
def study(store: Store) -> Study:
    return create(store, make_spec())


def queued(store: Store, study: Study, digest: str = "d0") -> int:
    return store.evaluations.want(study.id, recipe(), digest, "search")[0].id


def test_a_name_is_taken_once(store: Store, study: Study) -> None:
    with pytest.raises(Conflict, match="test"):
        create(store, make_spec())
    with pytest.raises(NotFound, match=r"'other'.*test"):
        store.studies.get("other")
    assert store.studies.get("test") == study


def test_the_same_recipe_and_part_are_one_evaluation(store: Store, study: Study) -> None:
    first, made = store.evaluations.want(study.id, recipe(), "d0", "search")
    again, made_again = store.evaluations.want(study.id, recipe(), "d0", "search")
    held, made_held = store.evaluations.want(study.id, recipe(), "d0", "holdout")
    assert made and not made_again and made_held
    assert first.id == again.id != held.id


def test_an_outcome_comes_back_as_it_was_written(store: Store, study: Study) -> None:
    lease = store.evaluations.claim(queued(store, study), "me", 60)
    assert lease is not None and lease.recipe == recipe()
    outcome = scored(1.0)
    assert store.evaluations.finish(lease, outcome)
    assert store.evaluations.get(lease.evaluation_id).outcome == outcome
    assert store.evaluations.unfinished(study.id) == ()


def test_a_claimed_evaluation_is_nobody_elses(store: Store, study: Study) -> None:
    evaluation_id = queued(store, study)
    assert store.evaluations.claim(evaluation_id, "one", 60) is not None
    assert store.evaluations.claim(evaluation_id, "two", 60) is None


def test_an_expired_lease_goes_to_another_and_the_first_owners_word_no_longer_counts(
    store: Store, study: Study
) -> None:
    evaluation_id = queued(store, study)
    slow = store.evaluations.claim(evaluation_id, "slow", seconds=-1)
    quick = store.evaluations.claim(evaluation_id, "quick", 60)
    assert slow is not None and quick is not None and quick.attempt == 2
    assert not store.evaluations.renew(slow, 60)
    assert not store.evaluations.finish(slow, Infeasible(why="late"))
    assert store.evaluations.renew(quick, 60)
    assert store.evaluations.finish(quick, scored(0.5))
    assert isinstance(store.evaluations.get(evaluation_id).outcome, Scored)
    assert not store.evaluations.finish(quick, Infeasible(why="twice"))


def test_a_retryable_failure_is_tried_again_and_not_for_ever(store: Store, study: Study) -> None:
    evaluation_id = queued(store, study)
    for _ in range(MAX_ATTEMPTS):
        lease = store.evaluations.claim(evaluation_id, "me", 60)
        assert lease is not None
        store.evaluations.finish(lease, Failed(why="disk full", retryable=True))
    assert store.evaluations.claim(evaluation_id, "me", 60) is None
    assert store.evaluations.get(evaluation_id).outcome == Failed(why="disk full")


def test_a_failed_evaluation_may_be_asked_for_once_more(store: Store, study: Study) -> None:
    evaluation_id = queued(store, study)
    lease = store.evaluations.claim(evaluation_id, "me", 60)
    assert lease is not None and store.evaluations.finish(lease, Failed(why="no memory"))
    store.evaluations.retry_failed(evaluation_id)
    again = store.evaluations.claim(evaluation_id, "me", 60)
    assert again is not None and again.attempt == 1 and store.evaluations.finish(again, scored(0.5))
    store.evaluations.retry_failed(evaluation_id)
    assert store.evaluations.get(evaluation_id).outcome == scored(0.5), "what did not fail is left alone"


def test_a_recipe_that_kills_its_workers_fails_and_does_not_take_the_fleet_down(store: Store, study: Study) -> None:
    evaluation_id = queued(store, study)
    other = queued(store, study, "d1")
    for attempt in range(MAX_ATTEMPTS):
        store.evaluations.claim(evaluation_id, f"worker {attempt}", 60)
        assert store.evaluations.lost_worker(f"worker {attempt}", "exit code -9") == (evaluation_id,)
    assert store.evaluations.get(evaluation_id).outcome == Failed(why="exit code -9 (attempt 3 of 3)")
    assert store.evaluations.unfinished(study.id) == (other,)


def test_a_killed_run_frees_its_leases_without_blaming_the_recipes(store: Store, study: Study) -> None:
    evaluation_id = queued(store, study)
    for _ in range(2 * MAX_ATTEMPTS):
        assert store.evaluations.claim(evaluation_id, "me", 60) is not None
        store.evaluations.release_all(study.id)
    assert store.evaluations.get(evaluation_id).attempts == 0


def test_a_trial_is_told_once_and_in_order(store: Store, study: Study) -> None:
    for number in range(3):
        store.trials.add(study.id, NewTrial(number, "tpe", {"x": 1.0}, None, None, "no recipe"))
    assert [t.number for t in store.trials.ready(study.id)] == [0, 1, 2]
    store.trials.tell(study.id, 2, "infeasible", None)
    store.trials.tell(study.id, 0, "complete", 0.5)
    first = store.trials.tell(study.id, 0, "complete", 0.9)
    assert (first.value, first.told_order) == (0.5, 2)
    assert [t.number for t in store.trials.ready(study.id)] == [1]
    assert store.trials.all(study.id)[2].why == "no recipe"


def test_a_trial_waits_for_its_evaluation(store: Store, study: Study) -> None:
    trial = store.trials.add(study.id, NewTrial(0, "tpe", {}, recipe(), "d0"))
    twin = store.trials.add(study.id, NewTrial(1, "tpe", {}, recipe(), "d0"))
    assert trial.evaluation_id == twin.evaluation_id
    assert store.trials.ready(study.id) == ()
    lease = store.evaluations.claim(trial.evaluation_id or 0, "me", 60)
    assert lease is not None
    store.evaluations.finish(lease, scored(1.0))
    assert [t.number for t in store.trials.ready(study.id)] == [0, 1]


def _claim_many(home: Path, ids: list[int], owner: str, won: "multiprocessing.Queue[int]") -> None:
    store = open_home(home)
    for evaluation_id in ids:
        if store.evaluations.claim(evaluation_id, owner, 60):
            won.put(evaluation_id)
    store.close()


def test_many_processes_claim_each_evaluation_once(tmp_path: Path) -> None:
    store = open_home(tmp_path / "home")
    study = create(store, make_spec())
    ids = [queued(store, study, f"d{i}") for i in range(40)]
    context = multiprocessing.get_context("spawn")
    won: multiprocessing.Queue[int] = context.Queue()
    workers = [context.Process(target=_claim_many, args=(tmp_path / "home", ids, f"w{i}", won)) for i in range(3)]
    for worker in workers:
        worker.start()
    claimed = sorted(won.get(timeout=60) for _ in ids)
    for worker in workers:
        worker.join()
    assert claimed == ids and won.empty()
    store.close()


def test_fingerprints_are_remembered(store: Store) -> None:
    assert store.fingerprints.get("k") is None
    store.fingerprints.put("k", "f")
    store.fingerprints.put("k", "g")
    assert store.fingerprints.get("k") == "g"
