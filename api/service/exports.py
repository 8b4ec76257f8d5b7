"""Export jobs: a trial of a study written in the form that is asked for, with the sizes and checksums of its files."""

import logging
from hashlib import file_digest
from pathlib import Path
from typing import Any

from api.choice import exportable
from api.forms import FULL, form_of
from api.winner import export_trial, exported_recipe
from db.records import Job
from db.store import Store
from merging.errors import MergesearchError, OutputError


class ExportsUnwritable(MergesearchError):
    """The service's own exports folder cannot be written: no fault of who asked."""


log = logging.getLogger(__name__)


def write_export(store: Store, job: Job, exports: Path) -> dict[str, Any]:
    """Write what an export job asks for; an earlier attempt's, if it came so far, is taken as it is.

    Returns:
        `folder` and `files` (name, bytes, sha256).

    Raises:
        MergesearchError: it cannot be built or written.
    """
    assert job.study_id is not None, "an export is of a study"
    study = store.studies.by_id(job.study_id)
    trial = exportable(store, study, job.content.get("trial"))
    form = form_of(job.content)
    name = f"{job.id}-trial-{trial.number}" + ("" if form.name == FULL else f"-{form.name}")
    place = exports.absolute() / study.name / name
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if exported_recipe(place) is None:  # folders appear whole or not at all
            export_trial(store, study, trial, place, stays=False, form=form)
    except (OSError, OutputError) as error:
        log.warning("cannot write to the exports folder: %s", error, extra={"job": job.id})
        why = error.strerror if isinstance(error, OSError) else error.problem
        remedy = "have MERGESEARCH_EXPORTS mended there, then export again"
        raise ExportsUnwritable(f"the service's folder of exports cannot be used: {why}; {remedy}") from error
    return {"folder": str(place), "trial": trial.number, "files": [_described(path, place) for path in _files(place)]}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _described(path: Path, folder: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = file_digest(file, "sha256").hexdigest()
    return {"name": path.relative_to(folder).as_posix(), "bytes": path.stat().st_size, "sha256": digest}
