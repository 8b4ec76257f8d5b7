"""Trials that no search asked for: the recipe of one whose experts were compressed, with the experts as they are."""

from collections.abc import Iterable, Mapping

from db.records import ORIGINALS, Study, Trial
from merging.compression import Compression


def is_lossy(study: Study) -> bool:
    """Whether the study keeps its experts in a form that lost something."""
    packed = study.setup.get("compressed")
    return packed is not None and not Compression.model_validate(packed["by"]).lossless


def twin_origin(number: int) -> str:
    """The origin of the trial that is trial `number` with the original experts."""
    return f"{ORIGINALS}{number}"


def is_twin(trial: Trial) -> bool:
    """Whether it is another trial with the original experts."""
    return trial.origin.startswith(ORIGINALS)


def searched(trials: Iterable[Trial]) -> tuple[Trial, ...]:
    """The trials that the search asked for."""
    return tuple(t for t in trials if not is_twin(t))


def twins(trials: Iterable[Trial]) -> Mapping[int, Trial]:
    """The trials with original experts, by the number of the trial that each was made of."""
    return {int(t.origin.removeprefix(ORIGINALS)): t for t in trials if is_twin(t)}
