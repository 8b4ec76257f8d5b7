"""A copy of the study in Optuna's own schema, for `optuna-dashboard` and `optuna.load_study`.

It is written after our own commit and can be rebuilt from our rows at any time; nothing is ever read from it
to decide anything. It lives in a file of its own, because Optuna's migrations and ours would break each other.
Trials appear once told, in the order of their numbers, so that both sides number them alike.
"""

import warnings
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial

from db.records import Study, Trial
from db.store import Store
from evaluation.result import Scored
from search.space import Space
from search.strategies.sampled import point_distributions

FILE = "optuna.db"
IDENTITY = "mergesearch:study"


class Mirror:
    """The dashboard's copy of one study.

    Args:
        home: the folder that holds the copy of all studies, in one file.
    """

    def __init__(self, home: Path, study: Study, space: Space, store: Store, warn: Callable[[str], None]) -> None:
        self._home, self._row, self._space, self._store, self._warn = home, study, space, store, warn
        self._study: optuna.Study | None = None
        self._warned = ""
        self._written = 0

    def sync(self, trials: Sequence[Trial]) -> None:
        """Write every told trial that follows the last one written.

        The copy is for looking at: whatever goes wrong with it is a warning (once), and is tried again with the
        next trial.

        Args:
            trials: all trials of the study, by number.
        """
        try:
            self._study = self._study or self._open(len(trials))
            for trial in trials[self._written :]:
                if trial.state == "open":
                    return
                self._study.add_trial(self._frozen(trial))
                self._written += 1
        except Exception as error:
            warning = f"the dashboard's copy could not be written ({type(error).__name__}: {error})"
            if warning != self._warned:
                self._warned = warning
                self._warn(warning)

    def _open(self, trials: int) -> optuna.Study:
        """Our study in the copy: new, or the one written before, rebuilt if it is not of this very study."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        mine = f"{self._row.frozen_digest}:{self._row.created_at}"
        with FileLock(self._home / "locks" / "optuna.lock"):  # Optuna's first steps in a new file do not share
            storage = RDBStorage(f"sqlite:///{self._home / FILE}", engine_kwargs={"connect_args": {"timeout": 30}})
            study = self._named(storage)
            written = len(study.get_trials(deepcopy=False))
            if written > trials or (written and study.user_attrs.get(IDENTITY) != mine):
                optuna.delete_study(study_name=self._row.name, storage=storage)
                study, written = self._named(storage), 0
            study.set_user_attr(IDENTITY, mine)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([f"{self._row.spec['objective']} of the tasks"])
        self._written = written
        return study

    def _named(self, storage: RDBStorage) -> optuna.Study:
        return optuna.create_study(
            study_name=self._row.name, storage=storage, direction="maximize", load_if_exists=True
        )

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
