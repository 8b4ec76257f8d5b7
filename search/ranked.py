"""A study's complete trials, best first."""

from collections.abc import Iterator, Mapping, Sequence

from db.records import Study, Trial
from db.store import Store
from evaluation.result import TaskScore
from search.judge import Judge
from search.standings import scores_of
from search.study import StudySpec


class _Scores(Mapping[int, Sequence[TaskScore]]):
    """The scores of complete trials by number, read when they are looked at: most objectives do not."""

    def __init__(self, store: Store, trials: Sequence[Trial]) -> None:
        self._store = store
        self._trials = {t.number: t for t in trials if t.value is not None}
        self._read: dict[int, tuple[TaskScore, ...]] = {}

    def __getitem__(self, number: int) -> Sequence[TaskScore]:
        if number not in self._read:
            self._read[number] = scores_of(self._store, self._trials[number])
        return self._read[number]

    def __iter__(self) -> Iterator[int]:
        return iter(self._trials)

    def __len__(self) -> int:
        return len(self._trials)


def ranked(store: Store, study: Study, trials: Sequence[Trial]) -> list[Trial]:
    """The study's complete trials, best first by its objective, those that meet its constraints before the others."""
    spec = StudySpec.model_validate(study.spec)
    judge = Judge(spec, tuple(e.name for e in spec.models.experts))
    return judge.ranking(trials, _Scores(store, trials))
