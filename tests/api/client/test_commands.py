"""The commands against a real service: what a person sees, what a program reads, how each ends."""

import io
import json
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from rich.console import Console
from typer.testing import CliRunner

from api.cli import app
from api.client.cli import register, remote_export, remote_status, remote_trials
from api.client.commands import StudyEnded, submit_file
from api.client.events import StudyEvent
from api.client.files import study_to_send
from api.client.follow import FollowProgress
from api.client.remote import Remote
from api.forms import Form
from db.store import Store
from merging.errors import InvalidInput, InvalidStudy, OutputError
from tests.api.client.conftest import FILES, Running, finish
from tests.api.rest.conftest import open_trial
from tests.search.factories import create, make_spec, study_content
from tests.test_architecture import loaded_by

APP = typer.Typer()
register(APP)


@pytest.fixture
def command(running: Running, monkeypatch: pytest.MonkeyPatch) -> Running:
    """The environment of somebody who uses the service."""
    monkeypatch.setenv("MERGESEARCH_SERVER", running.address)
    monkeypatch.setenv("MERGESEARCH_KEY", running.site.keys["run"])
    return running


def written(path: Path, **sections: Any) -> Path:
    path.write_text(yaml.safe_dump(study_content(**sections)))
    return path


def invoke(*arguments: str | Path) -> Any:
    """Run a command; what it printed."""
    done = CliRunner().invoke(APP, [str(a) for a in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done


def finish_soon(store: Store) -> threading.Thread:
    """Finish the study `test` once it is there."""

    def work() -> None:
        while (study := store.studies.find("test")) is None:
            time.sleep(0.02)
        finish(store, study)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_submit_pause_resume_cancel(command: Running, tmp_path: Path) -> None:
    done = invoke("submit", written(tmp_path / "s.yaml"))
    assert done.stdout == "" and "study test submitted; `mergesearch status test` shows" in done.stderr
    assert "study test is paused" in invoke("pause", "test").stderr
    assert json.loads(invoke("resume", "test", "--json").stdout)["state"] == "running"
    assert "study test is cancelled" in invoke("cancel", "test").stderr
    done = invoke("submit", written(tmp_path / "s.yaml", name="other"), "--json")
    assert json.loads(done.stdout)["name"] == "other"


def test_a_study_is_followed_to_its_verdict(command: Running, tmp_path: Path) -> None:
    thread = finish_soon(command.store)
    done = invoke("submit", written(tmp_path / "s.yaml"), "--follow")
    thread.join()
    assert "1/12  trial 0  random  0.2500  best so far: task_arithmetic (a 0.00)" in done.stderr
    assert "2/12  trial 1  random  0.7500  best so far" in done.stderr
    assert "3/12  trial 2  random  infeasible: NaN in the head" in done.stderr
    assert "winner: trial 1 (random)" in done.stdout and "beats the best expert (a) by 0.400" in done.stdout


def test_on_a_terminal_a_live_line_says_how_far_it_is(command: Running) -> None:
    study = create(command.store, make_spec())
    finish(command.store, study)
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=200)
    running = [{"progress": {"documents_done": 3, "documents_total": 8}}, {"progress": None}]
    artefacts = {"artefacts_done": 1, "artefacts_total": 3}
    measuring = {"progress": {"documents_done": 0, "documents_total": 8, **artefacts}}
    with command.remote("read") as remote:
        shown = FollowProgress(remote, "test", 12, console)
        progress = StudyEvent(None, "progress", {"running": [*running, measuring]})
        shown.show([*remote.events("test"), progress])
    said = screen.getvalue()
    assert "trial 3/12" in said and "best 0.7500 (trial 1: task_arithmetic" in said
    assert "1 measuring: 1 of 3 artefacts" in said
    assert "2 being scored: 3 of 8 documents" in said and shown.state == "finished"


def test_a_followed_study_as_json(command: Running, tmp_path: Path) -> None:
    thread = finish_soon(command.store)
    done = invoke("submit", written(tmp_path / "s.yaml"), "--follow", "--json")
    thread.join()
    assert json.loads(done.stdout)["winner"] == 1


@contextmanager
def once_followed(act: Callable[[], object]) -> Iterator[None]:
    """Do that in a thread of its own once whoever follows a study hears of it."""
    heard = threading.Event()
    events = Remote.events

    def listening(remote: Remote, *args: Any, **kwargs: Any) -> Iterator[StudyEvent]:
        for event in events(remote, *args, **kwargs):
            heard.set()
            yield event

    def work() -> None:
        if heard.wait(60):
            act()

    thread = threading.Thread(target=work)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Remote, "events", listening)
        thread.start()
        try:
            yield
        finally:
            thread.join()


def test_a_followed_study_that_is_cancelled(command: Running, tmp_path: Path) -> None:
    path = written(tmp_path / "s.yaml")
    with (
        command.remote() as remote,
        once_followed(lambda: command.store.studies.cancel("test")),
        pytest.raises(StudyEnded, match="'test' was cancelled"),
    ):
        submit_file(path, remote, follow=True, as_json=False)


def test_whoever_stops_following_leaves_the_study_running(
    command: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path / "s.yaml")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    main = threading.main_thread().ident
    assert main is not None
    try:
        with (
            command.remote() as remote,
            once_followed(lambda: signal.pthread_kill(main, signal.SIGINT)),
            pytest.raises(KeyboardInterrupt),
        ):
            submit_file(path, remote, follow=True, as_json=False)
    finally:
        signal.signal(signal.SIGINT, before)
    assert "study test goes on (`mergesearch cancel test` ends it)" in capsys.readouterr().err
    assert command.store.studies.get("test").state == "running"


def test_a_refused_study_is_told_as_the_embedded_command_tells_it(command: Running, tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy) as here:
        invoke("submit", written(tmp_path / "s.yaml", search={"trails": 3}))
    assert here.value.key == "search.trails" and "did you mean 'trials'?" in str(here.value)
    with pytest.raises(InvalidInput) as there:
        invoke("submit", written(tmp_path / "s.yaml", evaluation={"tasks": ["unknown"]}))
    said = "evaluation.tasks[0].name: 'unknown' is unknown to lm-eval; name one that it lists"
    assert str(there.value) == said
    with pytest.raises(InvalidInput, match=r"models.base: 'elsewhere' is not under a permitted root .*; name a folder"):
        invoke("submit", written(tmp_path / "s.yaml", models={"base": "elsewhere"}))
    assert command.store.studies.all() == ()


def test_folders_beside_the_file_are_sent_absolute_and_others_as_they_stand(tmp_path: Path) -> None:
    (tmp_path / "models" / "v2").mkdir(parents=True)
    (tmp_path / "models" / "latest").symlink_to("v2")
    experts = ["models/latest", "only/there", {"path": "/abs/c", "name": "x"}]
    sent = study_to_send(
        written(
            tmp_path / "s.yaml",
            models={"base": "models/../models", "experts": experts},
            evaluation={"include_path": "tasks"},
        )
    )
    assert sent.models.base == str(tmp_path / "models") and sent.evaluation.include_path == "tasks"
    assert [(e.name, e.path) for e in sent.models.experts] == [
        ("latest", str(tmp_path / "models" / "v2")),
        ("there", "only/there"),
        ("x", "/abs/c"),
    ]


def test_status_and_trials(command: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    invoke("submit", written(tmp_path / "s.yaml"))
    study = command.store.studies.get("test")
    lease = command.store.evaluations.claim(open_trial(command.store, study, 5), "box:1", 60)
    assert lease is not None and command.store.evaluations.progress(lease, 3, 8, 120.0)
    command.store.processes.leave("worker")
    assert command.store.evaluations.progress(lease, 0, 8, measuring=(1, 3))
    remote_status("test", command.address, as_json=False)
    assert "trial 5 on box:1: measuring artefact 2 of 3" in capsys.readouterr().out
    assert command.store.evaluations.progress(lease, 3, 8, 120.0)
    remote_status("test", command.address, as_json=False)
    out, err = capsys.readouterr()
    assert "0/12" in out and "trial 5 on box:1: 3 of 8 documents" in out
    assert "no worker is there for the study's pool 'default'" in err
    finish(command.store, study)
    remote_status("test", command.address, as_json=False)
    remote_trials("test", command.address, as_json=False)
    out = capsys.readouterr().out
    assert "finished" in out and "3/12" in out and "winner: trial 1" in out and "NaN in the head" in out
    remote_status(None, command.address, as_json=True)
    assert [(s["name"], s["best"]) for s in json.loads(capsys.readouterr().out)] == [("test", 0.75)]
    remote_status("test", command.address, as_json=True)
    assert json.loads(capsys.readouterr().out)["verdict"]["winner"] == 1
    remote_trials("test", command.address, as_json=True)
    trials = json.loads(capsys.readouterr().out)
    assert trials[1]["scores"]["t"]["value"] == 0.75 and trials[1]["recipe"]["schema"] == "mergesearch/recipe/v1"


def test_export(command: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    invoke("submit", written(tmp_path / "s.yaml"))
    finish(command.store, command.store.studies.get("test"))
    remote_export("test", None, tmp_path / "winner", command.address, Form())
    assert "trial 1 of study test exported to" in capsys.readouterr().err
    assert sorted(p.name for p in (tmp_path / "winner").rglob("*") if p.is_file()) == sorted(
        Path(name).name for name in FILES
    )
    with pytest.raises(OutputError, match="exists"):
        remote_export("test", None, tmp_path / "winner", command.address, Form())


def test_export_in_another_form(command: Running, tmp_path: Path) -> None:
    invoke("submit", written(tmp_path / "s.yaml"))
    finish(command.store, command.store.studies.get("test"))
    to, form = tmp_path / "small", ("--as", "sparse", "--set", "density=0.5")
    done = CliRunner().invoke(app, ["export", "test", "--to", str(to), *form])  # the server is in the environment
    assert done.exit_code == 0, done.output
    assert "trial 1 of study test exported as sparse to" in done.stderr and to.is_dir()
    study = command.store.studies.get("test")
    (job,) = command.store.jobs.of_study(study.id, "export")
    assert (job.content["as"], job.content["settings"]) == ("sparse", {"density": 0.5})


def test_the_client_is_light() -> None:
    heavy = {"torch", "transformers", "lm_eval", "optuna", "sqlalchemy", "alembic", "numpy", "scipy", "fastapi"}
    assert not loaded_by("api.client.commands", "api.client.cli") & heavy
