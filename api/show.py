"""`mergesearch status` and `mergesearch trials`: what the database holds."""

from pathlib import Path
from typing import Any

from api.conclusion import conclusion
from api.fronts import front_entries
from api.howfar import how_far
from api.locks import is_being_run
from api.output import print_json, screen
from api.report import StudyLine, front_table, studies_table, trials_table, verdict_tables
from db.records import Study, Trial
from db.store import Store, find_home
from evaluation.result import Scored
from merging.errors import NotFound
from search.fronts import front_of
from search.verdict import Verdict


def open_existing(home: Path) -> Store:
    """The store in that home.

    Raises:
        NotFound: there is none.
    """
    store = find_home(home.absolute())
    if store is None:
        raise NotFound(f"there are no studies in {home}; run one first, or name their folder with --home")
    return store


def show_status(name: str | None, home: Path, *, as_json: bool) -> None:
    """Print one study, or all."""
    store = open_existing(home)
    studies = (store.studies.get(name),) if name else store.studies.all()
    if as_json:
        found = [_summary(store, study, home) for study in studies]
        print_json(found[0] | _front(store, studies[0]) if name else found)
        return
    console = screen()
    console.print(studies_table([_line(store, study, home) for study in studies]))
    for study in studies if name else ():
        if study.verdict:
            verdict = Verdict.model_validate(study.verdict)
            console.print(*verdict_tables(verdict), conclusion(verdict), highlight=False)
        elif front := front_of(store, study):
            console.print(front_table(front))
        if study.why:
            console.print(f"failed: {study.why}", markup=False)


def show_trials(name: str, home: Path, *, as_json: bool) -> None:
    """Print a study's trials."""
    store = open_existing(home)
    study = store.studies.get(name)
    found = store.trials.all(study.id)
    if as_json:
        print_json([_detail(store, trial) for trial in found])
    else:
        screen().print(trials_table(found))


def _line(store: Store, study: Study, home: Path) -> StudyLine:
    how = how_far(store, study)
    counts = store.studies.counts(study.id)
    return StudyLine(study.name, _state(study, home), counts, how.asked, _best(store, study), how.share)


def _best(store: Store, study: Study) -> float | None:
    best = store.trials.best(study.id)
    return best.value if best else None


def _state(study: Study, home: Path) -> str:
    """The study's state as a person sees it: one that nobody runs any more is `stopped`."""
    return "stopped" if study.state == "running" and not is_being_run(home.absolute(), study.name) else study.state


def _summary(store: Store, study: Study, home: Path) -> dict[str, Any]:
    return {
        "name": study.name,
        "state": _state(study, home),
        "why": study.why,
        "trials": store.studies.counts(study.id),
        "trials_asked": (how := how_far(store, study)).asked,
        "used_up": how.share,
        "ended": study.ended,
        "best": _best(store, study),
        "verdict": study.verdict,
    }


def _front(store: Store, study: Study) -> dict[str, Any]:
    front = front_entries(store, study)
    return {} if front is None else {"front": [entry.model_dump(mode="json") for entry in front]}


def _detail(store: Store, trial: Trial) -> dict[str, Any]:
    detail: dict[str, Any] = {
        "number": trial.number,
        "origin": trial.origin,
        "state": trial.state,
        "value": trial.value,
        "why": trial.why,
        "params": trial.params,
    }
    if trial.evaluation_id is None:
        return detail
    evaluation = store.evaluations.get(trial.evaluation_id)
    detail |= {
        "recipe": evaluation.recipe.model_dump(mode="json", by_alias=True),
        "recipe_digest": evaluation.recipe_digest,
    }
    if isinstance(evaluation.outcome, Scored):
        outcome = evaluation.outcome
        detail |= {
            "scores": {
                s.task: {"metric": s.metric, "value": s.value, "stderr": s.stderr, "documents": len(s.documents)}
                for s in outcome.scores
            },
            "tokens": outcome.tokens,
            "build_seconds": outcome.build_seconds,
            "score_seconds": outcome.score_seconds,
            "device": outcome.device,
        }
    return detail
