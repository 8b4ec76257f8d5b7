"""Submissions: checked in full before anything is created, done once, confined to the roots."""

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from api.rest.problems import content_of
from db.store import Store, open_store
from merging.errors import InvalidModel
from tests.api.rest.conftest import Site, assert_problem, clerk_of, served, site_on, submission


def assert_nothing_created(site: Site) -> None:
    counts = site.store.metrics.read()
    assert counts.studies == {} and counts.jobs == {}


def test_a_study_is_checked_created_and_shown(any_site: Site) -> None:
    with clerk_of(any_site):
        answer = any_site.post("/v1/studies", submission())
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == "/v1/studies/test"
    shown = answer.json()
    assert shown["state"] == "running" and shown["trials_asked"] == 12
    assert shown["spec"]["models"]["base"] == os.path.realpath(any_site.root / "base")
    assert any_site.get("/v1/studies/test").json() == shown


@pytest.mark.parametrize("media_type", ["application/yaml", "text/yaml; charset=utf-8"])
def test_a_study_file_may_be_yaml(site: Site, clerk: None, media_type: str) -> None:
    text = yaml.safe_dump(submission())
    answer = site.client.post("/v1/studies", content=text, headers=site.headers("run", **{"Content-Type": media_type}))
    assert answer.status_code == 201, answer.text


BODIES = [
    ("application/json", '{"schema": ', "is not JSON"),
    ("application/json", '{"a": 1, "a": 2}', "'a' is given twice"),
    ("application/json", '{"a": NaN}', "NaN is no JSON number"),
    ("application/json", '{"a": 1e999}', "no finite number"),
    ("application/json", '{"a": "\\u0000"}', "no plain text"),
    ("application/json", '{"a": "\\ud800"}', "no plain text"),
    ("application/json", "[" * 100_000, "nested too deeply"),
    ("application/json", '{"a": ' + "9" * 4000 + "}", "more than 64 bits"),
    ("application/yaml", "a: 0x" + "f" * 6000, "more than 64 bits"),
    ("application/yaml", "a: !!bool maybe", "is not YAML"),
    ("application/yaml", "a: !!timestamp soon", "is not YAML"),
    ("application/yaml", "a: !!int ''", "is not YAML"),
    ("application/yaml", "a: 1\n1: 2", "the key '1' is no text"),
    ("application/json", json.dumps(["x" * 5000]), "longer than 4096"),
    ("application/json", json.dumps(list(range(20_000))), "more than 10000 values"),
    ("application/json", "\xff", "is not JSON"),
    ("application/json", "[]", "is not a mapping"),
    ("application/json", "", "is not JSON"),
    ("application/yaml", "a: [", "is not YAML"),
    ("application/yaml", "a: 1\na: 2", "'a' is given twice"),
    ("application/yaml", "a: &x [1]\nb: *x", "alias"),
    ("application/yaml", "[" * 100_000, "nested too deeply"),
    ("application/yaml", "{" * 100, "nested too deeply"),
    ("application/yaml", "? [1]\n: 2", "is no text"),
    ("application/yaml", "a: !!python/object:os.system {}", "is not YAML"),
    ("application/yaml", "a: 2024-01-01", "is a date; put it in quotes"),
]


@pytest.mark.parametrize(("media_type", "text", "word"), BODIES, ids=range(len(BODIES)))
def test_a_body_that_is_no_study_file_is_refused(site: Site, media_type: str, text: str, word: str) -> None:
    headers = site.headers("run", **{"Content-Type": media_type})
    answer = site.client.post("/v1/studies", content=text.encode("latin-1"), headers=headers)
    assert_problem(answer, 422, "invalid-input", word)
    assert_nothing_created(site)


def test_another_media_type_is_refused(site: Site) -> None:
    answer = site.client.post("/v1/studies", data={"a": "b"}, headers=site.headers("run"))
    assert_problem(answer, 415, "wrong-media-type", "x-www-form-urlencoded", "application/yaml")


@pytest.mark.parametrize(
    ("sections", "key", "words"),
    [
        ({"serach": {}}, "serach", ("unknown key", "did you mean 'search'")),
        ({"search": {"trials": 0}}, "search.trials", ("greater than or equal to 1",)),
        ({"space": {"methods": ["tise"]}}, "space.methods[0]", ("did you mean 'ties'",)),
        ({"name": "../x"}, "name", ("is not valid",)),
        ({"schema": "v9"}, "schema", ("mergesearch/study/v1",)),
    ],
)
def test_a_study_that_cannot_work_is_refused_with_key_value_and_remedy(
    site: Site, sections: dict[str, Any], key: str, words: tuple[str, ...]
) -> None:
    problem = assert_problem(site.post("/v1/studies", submission(**sections)), 422, "invalid-input", *words)
    assert problem["key"] == key and problem["remedy"]
    assert_nothing_created(site)


def test_a_value_is_not_repeated_at_length(site: Site) -> None:
    problem = assert_problem(
        site.post("/v1/studies", submission(search={"trials": [1] * 5000})), 422, "invalid-input", "search.trials"
    )
    assert len(problem["detail"]) < 1000 and len(problem["value"]) < 400


Escape = Callable[[Path, Path], str]


def _linked_folder(root: Path, outside: Path) -> str:
    (root / "link").symlink_to(outside)
    return "link"


def _linked_file(root: Path, outside: Path) -> str:
    (root / "base" / "model.safetensors").symlink_to(outside / "config.json")
    return "base"


def _linked_deep_inside(root: Path, outside: Path) -> str:
    (root / "base" / "sub").mkdir()
    (root / "base" / "sub" / "link").symlink_to(outside)
    return "base"


def _linked_through_a_linked_folder(root: Path, outside: Path) -> str:
    (root / "else").mkdir()
    (root / "else" / "file").symlink_to(outside / "config.json")
    (root / "base" / "sub").symlink_to(root / "else")
    return "base"


def _sibling(root: Path, outside: Path) -> str:
    (root.parent / (root.name + "-more")).mkdir()
    return str(root.parent / (root.name + "-more"))


ESCAPES: dict[str, Escape] = {
    "absolute": lambda root, outside: str(outside),
    "dots": lambda root, outside: f"../{outside.name}",
    "absolute dots": lambda root, outside: f"{root}/../{outside.name}",
    "dots in the middle": lambda root, outside: f"base/../../{outside.name}",
    "home": lambda root, outside: "~",
    "not there": lambda root, outside: "nowhere",
    "not there, outside": lambda root, outside: str(outside / "nowhere"),
    "too long": lambda root, outside: "x" * 3000,
    "sibling of the root": _sibling,
    "linked folder": _linked_folder,
    "linked file": _linked_file,
    "linked deep inside": _linked_deep_inside,
    "linked through a linked folder": _linked_through_a_linked_folder,
}


@pytest.mark.parametrize("where", ["base", "expert", "include_path"])
@pytest.mark.parametrize("escape", ESCAPES.values(), ids=ESCAPES)
def test_a_path_out_of_the_roots_is_refused(site: Site, tmp_path: Path, escape: Escape, where: str) -> None:
    outside = tmp_path / "secret"
    outside.mkdir()
    (outside / "config.json").write_text("{}")
    site.controller()
    path = escape(site.root, outside)
    cases: dict[str, dict[str, Any]] = {
        "base": {"models": {"base": path}},
        "expert": {"models": {"base": "experts/c", "experts": ["experts/a", {"path": path, "name": "x"}]}},
        "include_path": {"models": {"base": "experts/c"}, "evaluation": {"include_path": path}},
    }
    keys = {"base": "models.base", "expert": "models.experts[1].path", "include_path": "evaluation.include_path"}
    problem = assert_problem(
        site.post("/v1/studies", submission(**cases[where])), 422, "invalid-input", "permitted root"
    )
    assert problem["key"] == keys[where] and problem["remedy"]
    assert_nothing_created(site)


def named_in(*entries: Any) -> dict[str, Any]:
    """A submission with these experts."""
    return submission(models={"base": "base", "experts": list(entries)})


def test_what_policies_find_under_the_roots_is_what_the_study_lists(store: Store, tmp_path: Path) -> None:
    second = tmp_path / "second"
    for step in (10, 9):
        (second / "run" / f"checkpoint-{step}").mkdir(parents=True)
        (second / "run" / f"checkpoint-{step}" / "config.json").write_text("{}")
    entries = [{"runs": "experts/[ab]"}, {"checkpoints": "run"}, {"datasets": "checkpoint-*"}]
    with site_on(store, tmp_path, roots=(tmp_path / "root", second, second / "run")) as site, clerk_of(site):
        answer = site.post("/v1/studies", named_in(*entries[:2]))
        assert answer.status_code == 201, answer.text
        assert [(e["name"], e["policy"], e["order"]) for e in answer.json()["spec"]["models"]["experts"]] == [
            ("a", "runs", None),
            ("b", "runs", None),
            ("run-9", "checkpoints", 9),
            ("run-10", "checkpoints", 10),
        ]
        # a pattern that begins in every root is looked for in each, the first that has something is taken
        other = site.post("/v1/studies", named_in(*entries[2:]) | {"name": "other"})
        assert [e["name"] for e in other.json()["spec"]["models"]["experts"]] == ["checkpoint-9", "checkpoint-10"]


LEAVING: dict[str, tuple[Callable[[Path], Any], str]] = {
    "absolute": (lambda outside: {"runs": f"{outside}/*"}, "permitted root"),
    "dots": (lambda outside: {"runs": f"../{outside.name}/*"}, "permitted root"),
    "dots after a sign": (lambda outside: {"runs": f"*/../../{outside.name}"}, "open part"),
    "home": (lambda outside: {"runs": "~/*"}, "permitted root"),
    "linked": (lambda outside: {"runs": "linked/*"}, "permitted root"),
    "linked match": (lambda outside: {"runs": "link*"}, "leads out of the permitted roots"),
    "linked level": (lambda outside: {"runs": f"*ed/{outside.name}"}, "leads out of the permitted roots"),
    "linked after a sign": (lambda outside: {"runs": "exp*/linked"}, "leads out of the permitted roots"),
    "linked checkpoint": (lambda outside: {"checkpoints": "experts"}, "leads out of the permitted roots"),
    "run": (lambda outside: {"checkpoints": "linked"}, "permitted root"),
    "lineage": (lambda outside: {"lineage": {"x": "linked"}}, "permitted root"),
    "linked file": (lambda outside: {"runs": "experts/c"}, "leads out of the permitted roots"),
}


@pytest.mark.parametrize(("entry", "word"), LEAVING.values(), ids=LEAVING)
def test_a_policy_does_not_leave_the_roots_nor_tell_what_lies_there(
    site: Site, tmp_path: Path, entry: Callable[[Path], Any], word: str
) -> None:
    """The answer is the same whether there are models, or nothing, where the links and dots lead."""
    site.controller()
    outside = tmp_path / "secret"
    for link in (site.root / "linked", site.root / "experts" / "linked", site.root / "experts" / "checkpoint-5"):
        link.symlink_to(outside)
    (site.root / "experts" / "c" / "model.safetensors").symlink_to(outside / "config.json")

    def said() -> dict[str, Any]:
        answer = site.post("/v1/studies", named_in(entry(outside)))
        return {**assert_problem(answer, 422, "invalid-input", word), "request_id": None}

    nothing = said()
    (outside / "secret").mkdir(parents=True)
    for place in (outside, outside / "secret"):
        (place / "config.json").write_text("{}")
    assert said() == nothing
    assert nothing["key"].startswith("models.experts[0]") and nothing["remedy"]
    assert_nothing_created(site)


def test_what_lies_outside_is_not_told(site: Site, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()

    def said(name: str) -> str:
        content = submission(models={"base": str(tmp_path / name)})
        detail: str = site.post("/v1/studies", content).json()["detail"]
        return detail.replace(name, "NAME")

    assert said("there") == said("nowhere")


def test_links_within_a_root_and_further_roots_are_fine(store: Store, tmp_path: Path) -> None:
    second = tmp_path / "second"
    (second / "blobs").mkdir(parents=True)
    (second / "blobs" / "1").write_text("{}")
    (second / "snapshot").mkdir()
    (second / "snapshot" / "config.json").symlink_to("../blobs/1")
    (second / "snapshot" / "loop").symlink_to(second)
    with site_on(store, tmp_path, roots=(tmp_path / "root", second)) as site, clerk_of(site):
        answer = site.post("/v1/studies", submission(models={"base": "snapshot"}))
    assert answer.status_code == 201, answer.text
    assert answer.json()["spec"]["models"]["base"] == os.path.realpath(second / "snapshot")


def test_without_roots_nothing_can_be_named(store: Store, tmp_path: Path) -> None:
    with site_on(store, tmp_path, roots=()) as site:
        assert_problem(site.post("/v1/studies", submission()), 422, "invalid-input", "MERGESEARCH_ROOTS")


def test_a_second_study_of_the_same_name_is_refused(site: Site, clerk: None) -> None:
    assert site.post("/v1/studies", submission()).status_code == 201
    assert_problem(site.post("/v1/studies", submission()), 409, "conflict", "'test' exists already")
    assert len(site.store.studies.all()) == 1


def test_what_the_clerk_refuses_is_the_answer_and_nothing_is_created(store: Store, tmp_path: Path) -> None:
    key = {"Idempotency-Key": "k"}
    with site_on(store, tmp_path, submit_wait_seconds=0.0) as site:
        site.controller()
        first = site.post("/v1/studies", submission(), **key)
        assert first.status_code == 202
        lease = store.jobs.claim_next(["check"], "me", 60)
        said = content_of(InvalidModel("models.base", "base", "is a pickle checkpoint", "convert it to safetensors"))
        assert lease is not None and store.jobs.refuse(lease, said)
        for _ in range(2):
            problem = assert_problem(site.post("/v1/studies", submission(), **key), 422, "invalid-input", "pickle")
            assert problem["key"] == "models.base" and problem["remedy"] == "convert it to safetensors"
        shown = site.get(first.headers["location"]).json()
    assert shown["state"] == "failed" and shown["problem"]["detail"] == said["detail"]
    assert store.studies.all() == ()


def test_of_two_submissions_of_one_name_at_once_one_is_refused(store: Store, tmp_path: Path) -> None:
    with site_on(store, tmp_path, submit_wait_seconds=0.0) as site:
        site.controller()
        places = [site.post("/v1/studies", submission()).headers["location"] for _ in range(2)]
        with clerk_of(site):
            while (ends := [site.get(place).json() for place in places])[-1]["state"] in ("queued", "leased"):
                time.sleep(0.01)
    assert [end["state"] for end in ends] == ["done", "failed"]
    assert ends[1]["problem"]["status"] == 409 and len(store.studies.all()) == 1


def test_a_check_that_killed_its_clerks_is_a_problem(store: Store, tmp_path: Path) -> None:
    with site_on(store, tmp_path, submit_wait_seconds=0.0) as site:
        site.controller()
        place = site.post("/v1/studies", submission()).headers["location"]
        for _ in range(3):
            assert store.jobs.claim_next(["check"], "me", -1) is not None
        store.jobs.sweep()
        problem = site.get(place).json()["problem"]
    assert problem["status"] == 500 and problem["title"] and "3 times" in problem["detail"]


def test_without_a_controller_nothing_is_created(site: Site) -> None:
    problem = assert_problem(site.post("/v1/studies", submission()), 503, "unavailable", "mergesearch controller")
    assert problem["remedy"]
    assert_nothing_created(site)


def test_a_long_check_is_answered_with_where_to_look(store: Store, tmp_path: Path) -> None:
    with site_on(store, tmp_path, submit_wait_seconds=0.1) as site:
        site.controller()
        answer = site.post("/v1/studies", submission())
        assert answer.status_code == 202
        where = answer.headers["location"]
        assert site.get(where).json() == answer.json()
        assert answer.json()["state"] == "queued" and answer.json()["study"] is None
        with clerk_of(site):
            while site.get(where).json()["state"] != "done":
                time.sleep(0.01)
        assert site.get(where).json()["study"] == "test"
        assert_problem(site.get("/v1/submissions/999"), 404, "not-found")


def test_the_same_request_again_gives_the_same_answer(any_site: Site) -> None:
    key = {"Idempotency-Key": "my first"}
    with clerk_of(any_site):
        first = any_site.post("/v1/studies", submission(), **key)
        again = any_site.post("/v1/studies", submission(), **key)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json() and first.headers["location"] == again.headers["location"]
    assert len(any_site.store.studies.all()) == 1 and any_site.store.metrics.read().jobs == {("check", "done"): 1}
    other = any_site.post("/v1/studies", submission(name="other"), **key)
    assert_problem(other, 422, "invalid-input", "Idempotency-Key 'my first' was used for another request")
    elsewhere = any_site.post("/v1/studies", submission(), scope="admin", **key)
    assert_problem(elsewhere, 409, "conflict")


@pytest.mark.parametrize("key", ["", "x" * 256, "\x7f"])
def test_an_idempotency_key_that_cannot_be_kept_is_refused(site: Site, key: str) -> None:
    answer = site.post("/v1/studies", submission(), **{"Idempotency-Key": key})
    assert_problem(answer, 422, "invalid-input", "Idempotency-Key")


def test_many_may_wait_and_others_are_answered_meanwhile(postgres_url: str, tmp_path: Path) -> None:
    store = open_store(postgres_url)
    names = [f"s{number}" for number in range(45)]  # more than there are threads or database connections
    with site_on(store, tmp_path, submit_wait_seconds=60.0) as site, served(site) as address:
        site.controller()

        def submit(name: str) -> int:
            content = submission(name=name)
            return httpx.post(
                f"{address}/v1/studies", json=content, headers=site.headers("run"), timeout=60
            ).status_code

        with ThreadPoolExecutor(len(names)) as many:
            waiting = [many.submit(submit, name) for name in names]
            while store.metrics.read().jobs.get(("check", "queued"), 0) < len(names):
                time.sleep(0.05)
            began = time.monotonic()
            assert httpx.get(f"{address}/v1/studies", headers=site.headers(), timeout=10).status_code == 200
            assert time.monotonic() - began < 5
            with clerk_of(site):
                assert [future.result() for future in waiting] == [201] * len(names)
    store.close()
