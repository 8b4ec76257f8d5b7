"""The study file as it is sent to a service."""

from pathlib import Path

import yaml

from search.study import StudySpec, load_study, parse_study


def study_to_send(path: Path) -> StudySpec:
    """The study in a YAML or JSON file, checked as far as that goes without models.

    Where client and service share a file system, folders are found beside the file, as `mergesearch run` finds them;
    elsewhere they are the service's, which looks for relative ones under its roots. So a relative path that exists
    beside the file is sent absolute, and any other as it stands.

    Raises:
        InvalidStudy: unreadable, or anything in it is wrong.
    """
    located = load_study(path)
    as_written = parse_study(yaml.safe_load(path.read_text(encoding="utf-8")))
    pairs = zip(as_written.models.experts, located.models.experts, strict=True)
    models = located.models.model_copy(
        update={
            "base": _chosen(as_written.models.base, located.models.base),
            "experts": tuple(
                there.model_copy(update={"path": _chosen(written.path, there.path)}) for written, there in pairs
            ),
        }
    )
    written, there = as_written.evaluation.include_path, located.evaluation.include_path
    include = written and there and _chosen(written, there)
    evaluation = located.evaluation.model_copy(update={"include_path": include})
    return located.model_copy(update={"models": models, "evaluation": evaluation})


def _chosen(written: str, there: str) -> str:
    """The path as it stands in the file, or the place beside the file that it names, if there is something."""
    return there if not Path(written).is_absolute() and Path(there).exists() else written
