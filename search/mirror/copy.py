"""The copy of one study: written after the fact, trial by trial in the order of their numbers.

Trials appear once told, and none before all earlier ones, so that both sides number them alike. Optuna changes no trial
that has ended: once stopped trials were scored in full after all, the copy is made anew. Whatever goes wrong with the
copy is a warning and never in the way of the search.
"""

import json
import math
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from urllib.parse import quote

import optuna
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from db.neighbour import Neighbour, TrialCopy, alone
from db.records import Study, Trial
from db.store import Store
from search.judge import Judge
from search.mirror.layout import Layout
from search.mirror.page import FIGURE, NOTE, figure_attributes, note, note_attributes, weights_figure
from search.mirror.place import open_mirror
from search.space import Space
from search.standings import scores_of
from search.strategies.sampled import CONSTRAINTS
from search.study import StudySpec

IDENTITY = "mergesearch:study"
WRITTEN_FOR = "v3.2.0.a"  # the version of Optuna's tables that the bulk writing knows
PAGE_SECONDS = 60.0  # the note and the figure are written at most so often
_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED}  # of all others nothing is known
_FIRST, _MOST = 4, 256  # trials read at a time: few where few are new


class Mirror:
    """The dashboard's copy of one study.

    Args:
        url: where the copies of all studies are, as `mirror_url` gives it.
        warn: told what went wrong, once for each thing.
    """

    def __init__(self, url: str, study: Study, space: Space, store: Store, warn: Callable[[str], None]) -> None:
        self._url, self._row, self._space, self._store, self._warn = url, study, space, store, warn
        self._open: _Open | None = None
        self._layout: Layout | None = None
        self._warned: set[str] = set()

    def sync(self) -> int:
        """Write every told trial that follows the last one written, and from time to time the study's page.

        Returns:
            How many trials were written; what could not be is tried again at the next call.
        """
        return self._attempt(last=False)

    def finish(self) -> int:
        """As `sync`, with the study's page and its trials as they are now: to be called when the study has ended."""
        if self._open is not None and self._open.rescored != self._rescored():
            self.close()
        return self._attempt(last=True)

    def close(self) -> None:
        """Give the connections back; the next `sync` opens them again."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _attempt(self, last: bool) -> int:
        try:
            self._layout = self._layout or Layout(self._space)
            self._open = self._open or _find(self._url, self._row, self._layout, self._has, self._rescored())
            written = self._write(self._open)
            if last or self._open.page_due < time.monotonic():
                self._write_page(self._open)
            return written
        except Exception as error:
            self.close()
            text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            if text not in self._warned:
                self._warned.add(text)
                self._warn(f"the dashboard's copy could not be written ({text})")
            return 0

    def _has(self, number: int) -> bool:
        """Whether a trial of ours is told: else a copy that holds it is none of this database as it is."""
        trial = self._store.trials.get(self._row.id, number)
        return trial is not None and trial.state != "open"

    def _rescored(self) -> int:
        """How many stopped trials were scored in full after all."""
        if len(self._row.setup.get("rungs", ())) < 2:
            return 0
        complete = (t for t in self._store.trials.all(self._row.id) if t.state == "complete")
        return sum(t.estimate is not None for t in complete)

    def _write(self, copy: "_Open") -> int:
        written, limit = 0, _FIRST
        while True:
            page = self._store.trials.page(self._row.id, copy.written - 1 if copy.written else None, limit)
            told = _told(page, copy.written)
            if told:
                written += copy.append(self._frozen(told))
            if len(told) < limit:
                return written
            limit = min(8 * limit, _MOST)

    def _frozen(self, trials: Sequence[Trial]) -> list[FrozenTrial]:
        values = self._store.evaluations.values([t.evaluation_id for t in trials if t.evaluation_id is not None])
        return [self._freeze(t, values.get(t.evaluation_id or 0, {})) for t in trials]

    def _freeze(self, trial: Trial, values: dict[str, float]) -> FrozenTrial:
        assert self._layout is not None
        found = self._values(trial)
        state = TrialState.FAIL if found is None else _STATES[trial.state]
        attributes: dict[str, object] = {"origin": trial.origin}
        attributes |= {f"score:{task}": value for task, value in values.items()}
        if trial.estimate is not None:
            attributes["estimate"] = trial.estimate
        if state != TrialState.COMPLETE:
            attributes |= {"state": trial.state, "why": trial.why or ""}
        attributes["api"] = f"{_address(self._row)}/trials/{trial.number}"
        point = self._layout.point(trial.params)
        frozen = create_trial(
            state=state,
            values=found,
            params={name: value for name, (_, value) in point.items()},
            distributions={name: column.distribution for name, (column, _) in point.items()},
            user_attrs=attributes,
            system_attrs={CONSTRAINTS: list(trial.constraints)} if trial.constraints else {},
            intermediate_values={s.documents: s.value for s in trial.steps if s.documents and math.isfinite(s.value)},
        )
        frozen.number = trial.number
        frozen.datetime_start = datetime.fromtimestamp(trial.created_at)
        frozen.datetime_complete = datetime.fromtimestamp(trial.told_at or trial.created_at)
        return frozen

    def _values(self, trial: Trial) -> list[float] | None:
        """What the trial reached in each of the copy's objectives; of a stopped one, as Optuna has it, at the end.

        None where it reached nothing, or nothing that the dashboard could draw.
        """
        values: list[float | None] = [trial.value]
        if trial.state == "pruned" and trial.steps:
            last = trial.steps[-1]
            values = [last.value if last.documents else trial.estimate]  # of the proxy's rung the objective is unknown
        elif self._row.spec["objective"] == "pareto" and trial.state == "complete":
            spec = StudySpec.model_validate(self._row.spec)
            values = [*Judge(spec, tuple(self._space.experts)).values(scores_of(self._store, trial))]
        known = [value for value in values if value is not None and math.isfinite(value)]
        return known if known and len(known) == len(values) and trial.state in _STATES else None

    def _write_page(self, copy: "_Open") -> None:
        assert self._layout is not None
        text = note(self._store.studies.by_id(self._row.id), self._layout)
        if text != copy.note:
            # the dashboard's versions only ever grow, and a clock does too
            copy.tables.put(copy.study_id, NOTE, note_attributes(text, int(time.time())))
            copy.note = text
        best = self._store.trials.best(self._row.id) if len(self._space.groups) > 1 else None
        if best is not None and best.number != copy.best and best.evaluation_id is not None:
            figure = weights_figure(best, self._store.evaluations.recipe(best.evaluation_id))
            copy.tables.put(copy.study_id, FIGURE, figure_attributes(figure))
            copy.best = best.number
        copy.page_due = time.monotonic() + PAGE_SECONDS


class _Open:
    """A copy that was found or made, and what is known of it."""

    def __init__(
        self, tables: Neighbour, study: optuna.Study, storage: RDBStorage, layout: Layout, rescored: int
    ) -> None:
        self.tables, self.study_id, self.rescored = tables, study._study_id, rescored
        self.written = tables.count(self.study_id)
        self.note, self.best, self.page_due = "", -1, 0.0
        self._study, self._storage = study, storage
        self._in_bulk = tables.version() == WRITTEN_FOR
        self._distributions = {column.name: column.written for column in layout.columns}

    def append(self, trials: Sequence[FrozenTrial]) -> int:
        """Write these trials, unless others were written in the meantime; how many were."""
        if self._in_bulk:
            appended = len(trials) * self.tables.append(self.study_id, [self._plain(trial) for trial in trials])
        else:
            appended = sum(self._append_slowly(trial) for trial in trials)
        self.written = self.written + appended if appended else self.tables.count(self.study_id)
        return appended

    def _append_slowly(self, trial: FrozenTrial) -> bool:
        if self.tables.count(self.study_id) != trial.number:
            return False
        self._study.add_trial(trial)
        return True

    def close(self) -> None:
        """Give the connections back."""
        self.tables.close()
        _rest(self._storage)

    def _plain(self, trial: FrozenTrial) -> TrialCopy:
        return TrialCopy(
            number=trial.number,
            state=trial.state.name,
            values=tuple(trial.values or ()),
            started=_utc(trial.datetime_start),
            completed=_utc(trial.datetime_complete),
            params=tuple(
                (name, trial.distributions[name].to_internal_repr(value), self._distributions[name])
                for name, value in trial.params.items()
            ),
            attributes={key: json.dumps(value) for key, value in trial.user_attrs.items()},
            system={key: json.dumps(value) for key, value in trial.system_attrs.items()},
            intermediate=trial.intermediate_values,
        )


def _find(url: str, row: Study, layout: Layout, has: Callable[[int], bool], rescored: int) -> _Open:
    """The study's copy: new, or the one written before, made anew if it is not of this very study as it is.

    Args:
        has: whether the study has a told trial of that number.
        rescored: how many stopped trials were scored in full after all.
    """
    storage = open_mirror(url)
    columns = blake2b(layout.identity.encode(), digest_size=8).hexdigest()
    mine = f"{row.frozen_digest}:{row.created_at}:{columns}{f':{rescored}' if rescored else ''}"
    tables = Neighbour(url)
    try:
        with alone(url), warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study = _named(storage, row)
            count = tables.count(study._study_id)
            known = storage.get_study_system_attrs(study._study_id).get(IDENTITY)
            if known != mine or (count and not has(count - 1)):
                if count:
                    optuna.delete_study(study_name=row.name, storage=storage)
                    study = _named(storage, row)
                study.set_metric_names(_objectives(row))
                study.set_user_attr("strategy", row.spec["search"]["strategy"])
                study.set_user_attr("experts", ", ".join(e["name"] for e in row.spec["models"]["experts"]))
                study.set_user_attr("api", _address(row))
                tables.put(study._study_id, IDENTITY, {IDENTITY: json.dumps(mine)})
        return _Open(tables, study, storage, layout, rescored)
    except BaseException:
        tables.close()
        raise
    finally:
        _rest(storage)  # from here on rows are written in bulk


def _rest(storage: RDBStorage) -> None:
    storage.remove_session()
    storage.engine.dispose()


def _named(storage: RDBStorage, row: Study) -> optuna.Study:
    directions = [StudyDirection.MAXIMIZE] * len(_objectives(row))
    return optuna.create_study(study_name=row.name, storage=storage, directions=directions, load_if_exists=True)


def _objectives(row: Study) -> list[str]:
    """What each number of a trial is of: one a task that counts, or the study's objective."""
    if row.spec["objective"] == "pareto":
        return [task["name"] for task in row.spec["evaluation"]["tasks"] if task["weight"] > 0]
    return [f"{row.spec['objective']} of the tasks"]


def _address(row: Study) -> str:
    return f"/v1/studies/{quote(row.name, safe='')}"


def _told(page: Sequence[Trial], number: int) -> list[Trial]:
    """The trials at the page's beginning that are told and follow each other from that number on."""
    told: list[Trial] = []
    for trial in page:
        if trial.state == "open" or trial.number != number + len(told):
            break
        told.append(trial)
    return told


def _utc(moment: datetime | None) -> datetime:
    assert moment is not None
    return moment.astimezone(UTC).replace(tzinfo=None)
