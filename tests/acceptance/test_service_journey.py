"""The README's second half as a person lives it: everything from the command line, the rest with curl."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from tests.acceptance.service import Service
from zoo.make import Zoo
from zoo.study import write_study

TRIALS = 14
pytestmark = [
    pytest.mark.acceptance,
    pytest.mark.skipif(shutil.which("curl") is None, reason="curl is needed: apt-get install curl"),
]


@pytest.fixture(scope="module")
def service(open_service: Service) -> Service:
    """The API, a controller and two workers with real models."""
    open_service.controller()
    open_service.worker(rehearsal=False)
    return open_service


class Curl:
    """curl with an API key."""

    def __init__(self, url: str, key: str) -> None:
        self._url, self._key = url, key

    def command(self, path: str, *options: str) -> list[str]:
        """The words of a command."""
        return ["curl", "-sSN", "-H", f"Authorization: Bearer {self._key}", *options, f"{self._url}{path}"]

    def bytes(self, path: str, *options: str) -> bytes:
        """What it prints."""
        return subprocess.run(self.command(path, *options), capture_output=True, check=True, timeout=120).stdout

    def json(self, path: str, *options: str) -> Any:
        """What it prints, as JSON."""
        return json.loads(self.bytes(path, *options))

    def status(self, path: str, *options: str) -> int:
        """The status of the answer."""
        return int(self.bytes(path, "-o", "/dev/null", "-w", "%{http_code}", *options))


def event_ids(lines: list[str]) -> list[int]:
    """The numbers of the events in a stream."""
    return [int(found[1]) for line in lines if (found := re.match(r"id: (\d+)", line))]


def test_from_submission_to_a_loaded_checkpoint(nano: Zoo, service: Service, tmp_path: Path) -> None:
    curl = Curl(service.url, service.key("run"))
    search = {"trials": TRIALS, "parallel": 2}
    file = write_study(nano, nano.folder / "journey.yaml", name="journey", search=search, evaluation={"documents": 24})
    submit = ("-H", "Content-Type: application/yaml", "-H", "Idempotency-Key: once", "--data-binary", f"@{file}")
    made = curl.json("/v1/studies", *submit)
    assert made["name"] == "journey" and made["trials_asked"] == TRIALS
    assert curl.json("/v1/studies", *submit)["name"] == "journey", "sent again, nothing is made again"

    seen = watched(curl, cut_after=6)
    assert seen == list(range(1, seen[-1] + 1)), "not one event is missing, not one came twice"
    study = curl.json("/v1/studies/journey")
    assert study["state"] == "finished" and study["trials"]["complete"] == TRIALS
    winner = curl.json("/v1/studies/journey/verdict")["winner"]

    export = curl.json("/v1/studies/journey/exports", "-X", "POST")
    place = f"/v1/exports/{export['id']}"
    service.wait_until(lambda: curl.json(place)["state"] in ("done", "failed"), "it is exported")
    done = curl.json(place)
    assert done["state"] == "done" and done["trial"] == winner
    for listed in done["files"]:
        content = curl.bytes(listed["url"])
        assert hashlib.sha256(content).hexdigest() == listed["sha256"]
        (tmp_path / listed["name"]).write_bytes(content)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert sum(p.numel() for p in model.parameters()) > 0


def watched(curl: Curl, cut_after: int) -> list[int]:
    """Follow the study to its end, the stream cut once and resumed; the numbers of the events."""
    cut: list[str] = []
    with subprocess.Popen(curl.command("/v1/studies/journey/events"), stdout=subprocess.PIPE, text=True) as stream:
        assert stream.stdout is not None
        for line in stream.stdout:
            cut.append(line)
            if len(event_ids(cut)) == cut_after:
                break
        stream.kill()
    assert curl.status("/v1/studies/journey/exports", "-X", "POST") == 409, "it has no winner yet"
    last = event_ids(cut)[-1]
    rest = curl.bytes("/v1/studies/journey/events", "-H", f"Last-Event-ID: {last}").decode().splitlines()
    assert any("study.verdict" in line for line in rest)
    return event_ids(cut) + event_ids(rest)


def test_the_dashboard_is_for_who_has_a_key_and_only_to_look_at(service: Service) -> None:
    curl, nobody = Curl(service.url, service.key("read")), Curl(service.url, "ms_00000000_nothing")
    assert nobody.status("/dashboard") == 401 and nobody.status("/api/studies") == 401
    assert b"<html" in curl.bytes("/dashboard/").lower()
    assert isinstance(curl.json("/api/studies", "--compressed")["study_summaries"], list)
    assert curl.status("/api/studies/1", "-X", "DELETE") == 405
    assert curl.status("/v1/studies", "-X", "POST", "-d", "{}") in (403, 415)
    assert curl.status("/readyz") == 200 and b"mergesearch_trials" in curl.bytes("/metrics")
