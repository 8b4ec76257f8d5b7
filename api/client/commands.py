"""What the command line does with a service: submits, shows, changes, exports. Looks as the embedded commands do."""

from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from api.client.download import RemoteFile
from api.client.files import study_to_send
from api.client.follow import FollowProgress
from api.client.remote import Change, Found, Remote
from api.forms import FULL, Form
from api.kept import setup_lines
from api.output import print_json, screen
from db.records import DEFAULT_POOL, Trial
from merging.errors import MergesearchError

_DETAIL_KEYS = (  # of a trial, as the embedded `trials --json` prints it
    *("number", "origin", "state", "value", "why", "params"),
    *("recipe", "recipe_digest", "scores", "tokens", "build_seconds", "score_seconds", "device"),
)
_ALWAYS = 6  # of them; the others where they are known
_ENDS = {"failed": "failed", "cancelled": "was cancelled"}


class StudyEnded(MergesearchError):
    """The study that was followed failed or was cancelled."""


def submit_file(path: Path, remote: Remote, *, follow: bool, as_json: bool) -> None:
    """Submit the study in a file, and if asked follow it to its verdict.

    Raises:
        InvalidInput: something cannot work; nothing was created.
        StudyEnded: it was followed and failed or was cancelled.
        KeyboardInterrupt: of course; a study that was created goes on, which is said.
    """
    spec = study_to_send(path)
    try:
        study = remote.submit(spec.to_json())
    except KeyboardInterrupt:
        _say(
            f"interrupted while the service checked the study; `mergesearch status {spec.name}` tells what became of it"
        )
        raise
    if follow:
        _say(f"study {spec.name} submitted")
        follow_study(spec.name, remote, as_json=as_json)
    elif as_json:
        print_json(_summary(study))
    else:
        _say(f"study {spec.name} submitted; `mergesearch status {spec.name}` shows how far it is")
        _say_setup(study)
        _warn_if_idle(study)


def follow_study(name: str, remote: Remote, *, as_json: bool) -> None:
    """Show what happens in a study until it is over, then its verdict. Raises as `submit_file`."""
    console = Console(stderr=True)
    study = remote.study(name)
    _say_setup(study)
    _warn_if_idle(study)
    progress = FollowProgress(remote, name, study["trials_asked"], console)
    try:
        progress.show(remote.events(name, progress=console.is_terminal))
    except KeyboardInterrupt:
        _say(f"no longer following; study {name} goes on (`mergesearch cancel {name}` ends it)")
        raise
    study = remote.study(name)
    if study["state"] != "finished":
        why = f": {study['why']}" if study["why"] else ""
        raise StudyEnded(f"study {name!r} {_ENDS.get(study['state'], 'ended, and was resumed since')}{why}")
    verdict = remote.verdict(name)
    if as_json:
        print_json(verdict)
    else:
        _print_verdict(verdict)


def show_remote_status(name: str | None, remote: Remote, *, as_json: bool) -> None:
    """Print one study, or all. As JSON one has its verdict too."""
    found: list[Found] = [remote.study(name)] if name else remote.studies()
    verdict = remote.verdict(name) if name and found[0]["state"] == "finished" else None
    front = _front(found[0], remote) if name else {}
    if as_json:
        print_json(_summary(found[0]) | {"verdict": verdict} | front if name else [_summary(study) for study in found])
        return
    from api.report import StudyLine, studies_table

    lines = [
        StudyLine(s["name"], s["state"], s["trials"], s["trials_asked"], _best(s), s.get("used_up")) for s in found
    ]
    screen().print(studies_table(lines))
    if verdict is not None:
        _print_verdict(verdict)
    elif front.get("front"):
        _print_front(front["front"])
    for study in found if name else ():
        if study["why"]:
            screen().print(f"{study['state']}: {study['why']}", markup=False, highlight=False)
        if study["running"]:
            screen().print(_running(study), markup=False, highlight=False)
        _warn_if_idle(study)


def show_remote_trials(name: str, remote: Remote, *, as_json: bool) -> None:
    """Print a study's trials; as JSON with their recipes and scores."""
    found = remote.trials(name)
    if as_json:
        print_json([_detail(remote.trial(name, trial["number"])) for trial in found])
        return
    from api.report import trials_table

    screen().print(trials_table([_trial(trial) for trial in found]))


def change(name: str, what: Change, remote: Remote, *, as_json: bool) -> None:
    """Pause, resume or cancel a study."""
    study = remote.change(name, what)
    if as_json:
        print_json(_summary(study))
    else:
        _say(f"study {name} is {study['state']}")


def export_remote(name: str, trial: int | None, to: Path, remote: Remote, form: Form) -> None:
    """Have a trial exported in that form, the winner if none is named, and download it to a new folder.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    console = Console(stderr=True)
    with console.status("the service is writing the export") as status:

        def tell(file: RemoteFile, have: int) -> None:
            status.update(f"downloading {file.name}: {_size(have)} of {_size(file.size)}")

        done, files = remote.export(name, trial, to, tell, form)
    size = _size(sum(file.size for file in files))
    written = "" if form.name == FULL else f" as {form.name}"
    _say(f"trial {done['trial']} of study {name} exported{written} to {to} ({len(files)} files, {size})")


def _say(line: str) -> None:
    Console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)


def _say_setup(study: Found) -> None:
    for line in setup_lines(study):
        _say(line)


def _warn_if_idle(study: Found) -> None:
    if study["state"] == "running" and not study["workers"]:
        pool = study["spec"]["search"].get("pool", DEFAULT_POOL)
        said = f"no worker is there for the study's pool {pool!r}; it begins once one is started"
        _say(f"{said} (`mergesearch worker --pool {pool}`)")


def _running(study: Found) -> str:
    lines = []
    for one in study["running"]:
        what = f"trial {one['trial']}" if one["trial"] is not None else f"evaluation {one['evaluation']}"
        progress = one["progress"]
        lines.append(f"{what} on {one['worker']}: {_far(progress) if progress else 'beginning'}")
    return "\n".join(lines)


def _far(progress: Found) -> str:
    if of := progress.get("artefacts_total"):  # services of earlier versions do not say
        return f"measuring artefact {progress['artefacts_done'] + 1} of {of}"
    return f"{progress['documents_done']} of {progress['documents_total']} documents"


def _print_verdict(content: dict[str, Any]) -> None:
    from api.conclusion import conclusion
    from api.report import verdict_tables
    from search.verdict import Verdict

    verdict = Verdict.model_validate(content)
    screen().print(*verdict_tables(verdict), conclusion(verdict), highlight=False)


def _front(study: Found, remote: Remote) -> dict[str, Any]:
    """The front of a study with several objectives; earlier services say nothing of it."""
    if study["spec"].get("objective") != "pareto" or not study["best"]:
        return {}
    return {"front": remote.best(study["name"]).get("front")}


def _print_front(front: list[dict[str, Any]]) -> None:
    from api.report import front_table
    from search.verdict import FrontPoint

    points = [FrontPoint(trial=point["trial"], label=point["origin"], tasks=point["tasks"]) for point in front]
    screen().print(front_table(points))


def _best(study: Found) -> float | None:
    return study["best"]["value"] if study["best"] else None


def _summary(study: Found) -> dict[str, Any]:
    """A study as the embedded `status --json` prints it, with what only a service knows."""
    keys = ("name", "state", "why", "phase", "trials", "trials_asked")
    more = {key: study[key] for key in ("used_up", "ended", "running", "workers") if key in study}
    return {key: study[key] for key in keys} | {"best": _best(study)} | more


def _detail(trial: Found) -> dict[str, Any]:
    always, known = _DETAIL_KEYS[:_ALWAYS], _DETAIL_KEYS[_ALWAYS:]
    return {key: trial[key] for key in always} | {key: trial[key] for key in known if trial[key] is not None}


def _trial(found: Found) -> Trial:
    """What the service says of a trial, as the table takes it."""
    return Trial(
        number=found["number"],
        origin=found["origin"],
        params=found["params"],
        evaluation_id=None,
        state=found["state"],
        value=found["value"],
        why=found["why"],
        told_order=None,
        created_at=_epoch(found["created_at"]),
        told_at=_epoch(found["told_at"]) if found["told_at"] else None,
    )


def _epoch(time: str) -> float:
    return datetime.fromisoformat(time).timestamp()


def _size(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
