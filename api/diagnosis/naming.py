"""Which models the doctor is asked about: folders on the command line, or those that a study names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from merging.diagnosis.opening import BASE
from merging.errors import InvalidInput
from search.study import load_study


@dataclass(frozen=True)
class Models:
    """A base and its experts by name."""

    base: Path
    experts: Mapping[str, Path]


def named_models(paths: Sequence[Path]) -> Models:
    """The models of a list of folders, the base first; experts are called by the ends of their paths.

    Raises:
        InvalidInput: fewer than two, or one named twice.
    """
    if len(paths) < 2:
        shown = str(paths[0]) if paths else None
        raise InvalidInput("--models", shown, "needs a base and experts", "name the base's folder, then each expert's")
    parts = [path.resolve().parts for path in paths[1:]]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names) and BASE not in names:
            return Models(paths[0], dict(zip(names, paths[1:], strict=True)))
    twice = next(str(path) for path, part in zip(paths[1:], parts, strict=True) if parts.count(part) > 1)
    raise InvalidInput("--models", twice, "is named twice", "name every expert once")


def study_models(study: Path) -> Models:
    """The models that a study file names.

    Raises:
        InvalidStudy: the file cannot be read or is wrong.
    """
    models = load_study(study).models
    return Models(Path(models.base), {expert.name: Path(expert.path) for expert in models.experts})
