"""The study file as it is sent to a service."""

from pathlib import Path

from search.study import StudySpec, read_study, under


def study_to_send(path: Path) -> StudySpec:
    """The study in a YAML or JSON file, checked as far as that goes without models.

    Where client and service share a file system, folders are found beside the file, as `mergesearch run` finds them;
    elsewhere they are the service's, which looks for relative ones under its roots. So a relative path that exists
    beside the file is sent absolute, and any other as it stands.

    Raises:
        InvalidStudy: unreadable, or anything in it is wrong.
    """
    root = path.resolve().parent

    def chosen(key: str, folder: str) -> str:
        there = under(root, key, folder)
        return there if not Path(folder).is_absolute() and Path(there).exists() else folder

    return read_study(path).placed(chosen)
