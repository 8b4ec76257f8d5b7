"""A run is killed at any moment; the same command goes on and ends with exactly the trials that were asked for."""

import json
import os
import signal
import sqlite3
from pathlib import Path
from random import Random

import optuna
import pytest

from tests.acceptance.command import mergesearch, output, read_until, started
from zoo.make import Zoo
from zoo.study import write_study

pytestmark = pytest.mark.acceptance
TRIALS = 14


@pytest.fixture
def study(nano: Zoo, tmp_path: Path) -> Path:
    evaluation = {"documents": 24, "holdout": 0.5}
    return write_study(nano, tmp_path / "study.yaml", name="s", search={"trials": TRIALS}, evaluation=evaluation)


def assert_complete(home: Path) -> None:
    """Exactly the trials asked for, none counted or scored twice, told in an order without gaps; mirrored alike."""
    trials = output("trials", "s", "--home", home)
    assert [t["number"] for t in trials] == list(range(TRIALS))
    assert {t["state"] for t in trials} == {"complete"}
    with sqlite3.connect(home / "mergesearch.db") as database:
        told = [row[0] for row in database.execute("select told_order from merge_trial order by told_order")]
        states = database.execute("select state, count(*) from evaluation group by state").fetchall()
        twice = database.execute(
            "select recipe_digest from evaluation group by recipe_digest, part having count(*) > 1"
        ).fetchall()
    database.close()
    assert told == list(range(1, TRIALS + 1))
    assert [state for state, _ in states] == ["done"] and not twice
    status = output("status", "s", "--home", home)
    assert status["state"] == "finished" and status["verdict"]["trials"] == TRIALS
    mirror = optuna.load_study(study_name="s", storage=f"sqlite:///{home / 'optuna.db'}")
    assert [t.value for t in mirror.trials] == [t["value"] for t in trials]


# the log's words for: before the first trial, among the starts, in the search, in the final comparison
MOMENTS = ["searching", f"2/{TRIALS}", f"{Random().randint(4, TRIALS - 2)}/{TRIALS}", "on the holdout"]


@pytest.mark.parametrize(
    ("moment", "whole_group"),
    [(0, True), (1, False), (2, True), (2, False), (3, True)],
    ids=["before-the-first", "parent-in-the-starts", "in-the-search", "parent-in-the-search", "in-the-verdict"],
)
def test_a_killed_run_goes_on(study: Path, tmp_path: Path, moment: int, whole_group: bool) -> None:
    home = tmp_path / "home"
    with started("run", study, "--home", home, "--to", tmp_path / "winner") as process:
        read_until(process, MOMENTS[moment])
        if whole_group:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "winner").exists()
        assert output("status", "s", "--home", home)["state"] == "stopped"
        # one worker is enough to find what two left, and takes seconds less to start
        goes_on = ("run", study, "--home", home, "--to", tmp_path / "winner", "--device", "cpu")
        again = mergesearch(*goes_on, check=False)
    assert again.returncode == 0, f"killed at {MOMENTS[moment]!r}\n{again.stderr}"
    assert_complete(home)
    assert (tmp_path / "winner" / "model.safetensors").exists()


def test_a_run_interrupted_and_killed_again_and_again_gets_there(study: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    with started("run", study, "--home", home) as process:
        read_until(process, f"2/{TRIALS}")
    with started("run", study, "--home", home) as process:
        read_until(process, f"5/{TRIALS}")
        os.kill(process.pid, signal.SIGINT)
        assert "run the same command again" in read_until(process, "interrupted")
        assert process.wait() == 130
    with sqlite3.connect(home / "mergesearch.db") as database:
        leased = database.execute("select count(*) from evaluation where state = 'leased'").fetchone()
    database.close()
    assert leased == (0,), "an interrupted run frees its work"
    with started("run", study, "--home", home) as process:
        read_until(process, f"10/{TRIALS}")
    mergesearch("run", study, "--home", home)
    assert_complete(home)
    finished = mergesearch("run", study, "--home", home)
    assert "winner" in finished.stdout, "a finished study shows its verdict again"
    assert f"/{TRIALS}" not in finished.stderr, "and tries nothing more"


def test_a_finished_study_goes_on_when_more_trials_are_asked_for(study: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    study.write_text(study.read_text().replace(f"trials: {TRIALS}", f"trials: {TRIALS - 4}"))
    mergesearch("run", study, "--home", home, "--device", "cpu")
    study.write_text(study.read_text().replace(f"trials: {TRIALS - 4}", f"trials: {TRIALS}"))
    mergesearch("run", study, "--home", home, "--device", "cpu")
    assert_complete(home)
    exports = sorted((home / "exports").iterdir())
    assert [e.name for e in exports] == ["s", "s-2"], "the earlier export is left as it was"
    assert json.loads((exports[1] / "verdict.json").read_text()) == output("status", "s", "--home", home)["verdict"]


def test_two_runs_of_one_study_do_not_meet(study: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    study.write_text(study.read_text().replace(f"trials: {TRIALS}", "trials: 5000"))  # not over before the second comes
    with started("run", study, "--home", home, "--device", "cpu") as process:
        read_until(process, "1/5000")
        os.killpg(process.pid, signal.SIGSTOP)  # it has the study, and takes no time from the second
        second = mergesearch("run", study, "--home", home, check=False)
        assert second.returncode == 2 and "another process" in second.stderr
