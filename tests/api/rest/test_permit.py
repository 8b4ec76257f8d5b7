"""Code and judges that a submission names: allowed as far as the service's owner says, whatever the way there."""

from pathlib import Path
from typing import Any

import pytest

from db.store import Store
from tests.api.rest.conftest import Site, assert_problem, clerk_of, site_on, submission

JUDGE = {"name": "j", "kind": "judge", "path": "prompts.jsonl", "model": "m", "rubric": "r"}


def submit(site: Site, task: dict[str, Any], **evaluation: Any) -> Any:
    site.controller()
    return site.post("/v1/studies", submission(evaluation={"tasks": ["t", task], **evaluation}))


def judged(site: Site, url: str) -> Any:
    (site.root / "prompts.jsonl").write_text('{"prompt": "a"}\n')
    return submit(site, JUDGE | {"url": url})


ALLOWED = ("judge.example", "10.0.0.5:8080", "[::1]:81")
GOOD = ["https://judge.example/v1", "http://JUDGE.example:80/v1", "http://10.0.0.5:8080", "http://[::1]:81/v1"]
BAD = [
    "http://127.0.0.1/v1",
    "http://169.254.169.254/latest/meta-data",
    "https://judge.example.evil.example/v1",
    "https://judge.example:8443/v1",
    "https://evil.example/judge.example",
    "http://10.0.0.5/v1",
    "http://10.0.0.5:80/v1",
    "http://[::1]/v1",
]


@pytest.mark.parametrize("url", BAD)
def test_a_judge_that_is_not_allowed_is_refused(store: Store, tmp_path: Path, url: str) -> None:
    with site_on(store, tmp_path, judge_hosts=ALLOWED) as site:
        said = assert_problem(judged(site, url), 422, "invalid-input", "MERGESEARCH_JUDGE_HOSTS")
    assert said["key"] == "evaluation.tasks[1].url" and store.metrics.read().jobs == {}


def test_allowed_judges_may_be_asked(store: Store, tmp_path: Path) -> None:
    with site_on(store, tmp_path, judge_hosts=ALLOWED, submit_wait_seconds=0.0) as site:
        assert [judged(site, url).status_code for url in GOOD] == [202] * len(GOOD)


def test_without_the_setting_no_judge_may_be_asked(site: Site) -> None:
    assert_problem(judged(site, GOOD[0]), 422, "invalid-input", "is no endpoint that this service may ask")


def proposed(site: Site, url: str) -> Any:
    site.controller()
    search = {"strategy": "proposer", "options": {"url": url, "model": "m"}}
    return site.post("/v1/studies", submission(search=search))


def test_a_proposer_may_be_asked_where_a_judge_may(store: Store, tmp_path: Path) -> None:
    with site_on(store, tmp_path, judge_hosts=ALLOWED, submit_wait_seconds=0.0) as site:
        for url in BAD:
            said = assert_problem(proposed(site, url), 422, "invalid-input", "MERGESEARCH_JUDGE_HOSTS")
            assert said["key"] == "search.options.url" and store.metrics.read().jobs == {}
        assert [proposed(site, url).status_code for url in GOOD] == [202] * len(GOOD)


@pytest.mark.parametrize("function", ["os:system", "mine:f", "tasks.mine:f"])
def test_code_that_is_not_in_the_study_s_folder_is_refused(site: Site, function: str) -> None:
    (site.root / "tasks").mkdir()
    (site.root / "mine.py").write_text("")
    for evaluation in ({}, {"include_path": "tasks"}):
        task = {"name": "p", "kind": "python", "function": function}
        said = assert_problem(submit(site, task, **evaluation), 422, "invalid-input", "runs no other code")
        assert said["key"] == "evaluation.tasks[1].function"


def test_code_in_the_study_s_folder_may_run_unless_it_leads_out(site: Site, tmp_path: Path) -> None:
    (site.root / "tasks").mkdir()
    (site.root / "tasks" / "mine.py").write_text("")
    task = {"name": "p", "kind": "python", "function": "mine:f"}
    with clerk_of(site):
        assert submit(site, task, include_path="tasks").status_code == 201
    (tmp_path / "other.py").write_text("")
    (site.root / "tasks" / "other.py").symlink_to(tmp_path / "other.py")
    linked = task | {"function": "other:f"}
    assert_problem(submit(site, linked, include_path="tasks"), 422, "invalid-input", "leads out of the permitted roots")


@pytest.mark.parametrize("path", ["../secret.txt", "/etc/hostname", "texts/link.txt"])
def test_a_file_of_documents_must_lie_under_a_root(site: Site, tmp_path: Path, path: str) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (site.root / "texts").mkdir()
    (site.root / "texts" / "link.txt").symlink_to(tmp_path / "secret.txt")
    task = {"name": "x", "kind": "text", "path": path}
    said = assert_problem(submit(site, task), 422, "invalid-input", "is not under a permitted root")
    assert said["key"] == "evaluation.tasks[1].path"
