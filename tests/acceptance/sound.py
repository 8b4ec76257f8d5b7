"""What must hold of a study whatever happened to the processes that worked on it."""

import re
from collections import Counter
from typing import NamedTuple

import optuna
import psycopg
from optuna.storages import RDBStorage

from db.records import Study, Trial
from evaluation.objective import objective
from evaluation.result import Scored
from search.mirror import mirror_url
from tests.acceptance.service import Service

_DONE = re.compile(r"action=evaluation\.done study=(\d+) evaluation=(\d+)")


class Row(NamedTuple):
    """An evaluation as its row stands."""

    id: int
    digest: str
    state: str
    outcome: str | None
    scores: int


def assert_sound(service: Service, study: Study, trials: int) -> tuple[Trial, ...]:
    """Exactly these many trials, each scored, each told once, nothing scored twice, nothing left behind.

    Returns:
        The trials, by number.
    """
    found = service.store.trials.all(study.id)
    assert [t.number for t in found] == list(range(trials))
    assert {t.state for t in found} == {"complete"}
    assert sorted(t.told_order or 0 for t in found) == list(range(1, trials + 1))
    assert_told_once(service, study, found)
    assert_scored_once(service, study, found)
    return found


def assert_told_once(service: Service, study: Study, trials: tuple[Trial, ...]) -> None:
    """The events say of each trial once that it was added and once that it was told, in the order of the rows."""
    events = service.store.events.after(study.id, 0, limit=10_000)
    assert [e.seq for e in events] == list(range(1, len(events) + 1))
    added = [e.data["number"] for e in events if e.kind == "trial.added"]
    assert added == [t.number for t in trials]
    told = [(e.data["number"], e.data["value"]) for e in events if e.kind == "trial.told"]
    assert told == [(t.number, t.value) for t in sorted(trials, key=lambda t: t.told_order or 0)]


def assert_scored_once(service: Service, study: Study, trials: tuple[Trial, ...]) -> None:
    """Every recipe has one evaluation, which is done, has its scores, and was written by one worker alone.

    Beside those of the trials there are at most those that explain the winner.
    """
    rows = evaluation_rows(service, study)
    beside = {row.id for row in rows} - {t.evaluation_id for t in trials}
    assert {t.evaluation_id for t in trials} <= {row.id for row in rows}
    assert len(beside) <= (len(study.spec["models"]["experts"]) + 2) * study.spec["search"]["explain"]
    assert [digest for digest, n in Counter(row.digest for row in rows).items() if n > 1] == []
    weights = {task["name"]: task["weight"] for task in study.spec["evaluation"]["tasks"]}
    for row in rows:
        assert (row.state, row.outcome, row.scores) == ("done", "scored", len(weights)), row
    for trial in trials:
        assert trial.evaluation_id is not None
        evaluation = service.store.evaluations.get(trial.evaluation_id)
        assert evaluation.recipe.digest(study.setup["fingerprints"]) == evaluation.recipe_digest
        assert isinstance(evaluation.outcome, Scored)
        assert trial.value == objective(study.spec["objective"], evaluation.outcome.scores, weights)
    assert [id_ for id_, n in written(service, study).items() if n > 1] == []


def evaluation_rows(service: Service, study: Study) -> list[Row]:
    """The rows of what was scored on the search documents."""
    query = (
        "select id, recipe_digest, state, outcome, (select count(*) from score where evaluation_id = evaluation.id)"
        " from evaluation where study_id = %s and part = 'search' order by id"
    )
    with psycopg.connect(service.database_url.replace("+psycopg", "")) as connection:
        return [Row(*row) for row in connection.execute(query, [study.id])]


def written(service: Service, study: Study) -> Counter[int]:
    """How often workers say that they wrote an evaluation's outcome."""
    logs = (process.log.read_text(errors="replace") for process in service.processes if process.role == "worker")
    pairs = (map(int, pair) for text in logs for pair in _DONE.findall(text))
    return Counter(evaluation for of, evaluation in pairs if of == study.id)


def assert_mirrored(service: Service, study: Study) -> None:
    """Wait until the dashboard's copy has all told trials; see that stock Optuna reads them as ours."""
    ours = service.store.trials.all(study.id)
    storage = RDBStorage(mirror_url(service.database_url))
    try:

        def theirs() -> list[optuna.trial.FrozenTrial]:
            storage.remove_session()
            return optuna.load_study(study_name=study.name, storage=storage).get_trials(deepcopy=False)

        def is_written() -> bool:
            named = {summary.study_name for summary in optuna.get_all_study_summaries(storage)}
            return study.name in named and len(theirs()) == len(ours)

        service.wait_until(is_written, "the dashboard's copy is written")
        assert [(t.number, t.value) for t in theirs()] == [(t.number, t.value) for t in ours]
        assert all(t.params == (o.params or {}) for t, o in zip(theirs(), ours, strict=True))
    finally:
        storage.remove_session()
        storage.engine.dispose()


def finish_rehearsal(service: Service, study: Study, trials: int) -> tuple[Trial, ...]:
    """Wait until a rehearsed study has all its trials; see that it is sound. It ends so: nobody can judge it."""
    service.wait_until_told(study, trials)
    found = assert_sound(service, study, trials)
    service.store.studies.cancel(study.name)
    assert_mirrored(service, study)
    return found
