"""A copy of the study in Optuna's own schema, for `optuna-dashboard` and `optuna.load_study`.

It is written after our own commit and can be rebuilt from our rows at any time; nothing is ever read from it
to decide anything. It lives in a file of its own, because Optuna's migrations and ours would break each other.
Trials appear once told, in the order of their numbers, so that both sides number them alike.
"""

import warnings
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from db.records import Trial
from db.store import Store
from evaluation.result import Scored
from search.space import Space
from search.strategies.sampled import point_distributions
from search.study import StudySpec

FILE = "optuna.db"


class Mirror:
    """The dashboard's copy of one study.

    Args:
        home: the folder that holds the copy of all studies, in one file.
    """

    def __init__(self, home: Path, spec: StudySpec, space: Space, store: Store) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        storage = RDBStorage(f"sqlite:///{home / FILE}", engine_kwargs={"connect_args": {"timeout": 30}})
        self._study = optuna.create_study(
            study_name=spec.name, storage=storage, direction="maximize", load_if_exists=True
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.set_metric_names([f"{spec.objective} of the tasks"])
        self._space, self._store = space, store
        self._written = len(self._study.get_trials(deepcopy=False))

    def sync(self, trials: Sequence[Trial]) -> None:
        """Write every told trial that follows the last one written.

        Args:
            trials: all trials of the study, by number.
        """
        for trial in trials[self._written :]:
            if trial.state == "open":
                return
            self._study.add_trial(self._frozen(trial))
            self._written += 1

    def _frozen(self, trial: Trial) -> FrozenTrial:
        attributes: dict[str, object] = {"origin": trial.origin}
        if trial.evaluation_id is not None:
            outcome = self._store.evaluations.get(trial.evaluation_id).outcome
            if isinstance(outcome, Scored):
                attributes |= {f"score:{s.task}": s.value for s in outcome.scores}
        if trial.why:
            attributes["why"] = trial.why
        complete = trial.state == "complete"
        frozen = create_trial(
            state=TrialState.COMPLETE if complete else TrialState.FAIL,
            value=trial.value if complete else None,
            params=trial.params or {},
            distributions=point_distributions(self._space, trial.params),
            user_attrs=attributes,
        )
        frozen.datetime_start = datetime.fromtimestamp(trial.created_at)
        frozen.datetime_complete = datetime.fromtimestamp(trial.told_at or trial.created_at)
        return frozen
