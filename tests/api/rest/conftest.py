"""A service over a real store, asked through HTTP, with a clerk that needs no models."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient

from api.rest.app import create_app
from api.rest.problems import content_of
from api.service.serve import Server
from api.service.settings import ServiceSettings
from db.records import JobLease, Study
from db.store import Store
from db.trials import NewTrial
from evaluation.result import Failed, Infeasible, Scored
from merging.errors import MergesearchError
from merging.recipe import GroupMerge, Recipe
from search.study import parse_study
from tests.search.factories import create, leading, make_spec, scored, study_content

MODELS = ("base", "experts/a", "experts/b", "experts/c")


@dataclass
class Site:
    """A service with a key of each scope and models under its root."""

    store: Store
    settings: ServiceSettings
    client: TestClient
    keys: dict[str, str]

    @property
    def root(self) -> Path:
        return self.settings.roots[0]

    def headers(self, scope: str = "read", **more: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[scope]}", **more}

    def get(self, path: str, scope: str = "read", **headers: str) -> Any:
        return self.client.get(path, headers=self.headers(scope, **headers))

    def post(self, path: str, content: Any = None, scope: str = "run", **headers: str) -> Any:
        return self.client.post(path, json=content, headers=self.headers(scope, **headers))

    def controller(self) -> None:
        """Let a controller be alive."""
        self.store.processes.beat("controller", "controller", {})


def settings_for(store: Store, folder: Path, **values: Any) -> ServiceSettings:
    root = folder / "root"
    for name in MODELS:
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "config.json").write_text("{}")
    given = {"database_url": store.url, "roots": (root,), "exports": folder / "exports"} | values
    return ServiceSettings(**given)  # type: ignore[arg-type]


@contextmanager
def site_on(store: Store, folder: Path, parts: dict[str, Any] | None = None, **values: Any) -> Iterator[Site]:
    settings = settings_for(store, folder, **values)
    app = create_app(settings, store, **(parts or {}))
    keys = {scope: store.keys.create(scope, [scope])[1] for scope in ("read", "run", "admin")}
    with TestClient(app, raise_server_exceptions=False) as client:
        yield Site(store, settings, client, keys)


@pytest.fixture
def site(store: Store, tmp_path: Path) -> Iterator[Site]:
    with site_on(store, tmp_path) as made:
        yield made


@pytest.fixture
def any_site(any_store: Store, tmp_path: Path) -> Iterator[Site]:
    with site_on(any_store, tmp_path) as made:
        yield made


Work = Callable[[Site, JobLease], dict[str, Any]]


def check(site: Site, lease: JobLease) -> dict[str, Any]:
    """Every study is found to be good."""
    spec = parse_study(lease.job.content["spec"])
    create(site.store, spec)
    return {"study": spec.name}


@contextmanager
def clerk_of(site: Site, works: Mapping[str, Work] | None = None) -> Iterator[None]:
    """Somebody who does jobs: by default checks alone."""
    works, over = works or {"check": check}, threading.Event()

    def work() -> None:
        while not over.wait(0.01):
            lease = site.store.jobs.claim_next(list(works), "clerk", 60)
            if lease is not None:
                try:
                    site.store.jobs.finish(lease, works[lease.job.kind](site, lease))
                except MergesearchError as error:
                    site.store.jobs.refuse(lease, content_of(error))

    site.controller()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture
def clerk(site: Site) -> Iterator[None]:
    with clerk_of(site):
        yield


def submission(**sections: Any) -> dict[str, Any]:
    """A study file whose models lie under the root."""
    return study_content(**sections)


def a_study(store: Store, name: str = "test") -> Study:
    return create(store, make_spec(name=name))


def recipe(weight: float) -> Recipe:
    group = GroupMerge(layers=(0, 4), method="task_arithmetic", weights={"a": weight})
    return Recipe(schema_="mergesearch/recipe/v1", base="base", experts={"a": "a"}, groups=(group,))


def open_trial(store: Store, study: Study, number: int) -> int:
    """Add a trial; the id of its evaluation."""
    new = NewTrial(number, "random", {"w": number / 10}, recipe(number / 10), f"d{number}")
    found = store.trials.add(leading(store, study.id), new).evaluation_id
    assert found is not None
    return found


def told_trial(store: Store, study: Study, number: int, outcome: Scored | Infeasible | Failed) -> None:
    """A trial from its proposal to its end."""
    lease = store.evaluations.claim(open_trial(store, study, number), "worker", 60)
    assert lease is not None and store.evaluations.finish(lease, outcome)
    lead = leading(store, study.id)
    if isinstance(outcome, Scored):
        store.trials.tell(lead, number, "complete", outcome.scores[0].value)
    else:
        store.trials.tell(lead, number, outcome.kind, None, outcome.why)


VERDICT = {
    "schema": "mergesearch/verdict/v1",
    "objective": "mean",
    "finalists": [],
    "winner": 1,
    "best_expert": None,
    "documents": {"search": 8, "holdout": 4},
    "trials": 3,
}


def finished(store: Store, name: str = "test") -> Study:
    """A study with two complete trials and an infeasible one, and a verdict."""
    study = a_study(store, name)
    told_trial(store, study, 0, scored(0.25))
    told_trial(store, study, 1, scored(0.75))
    told_trial(store, study, 2, Infeasible(why="NaN in the head"))
    store.studies.finish(leading(store, study.id), VERDICT)
    return store.studies.get(name)


@contextmanager
def served(site: Site) -> Iterator[str]:
    """The same application on a real socket; its address."""
    app = create_app(site.settings, site.store)
    config = uvicorn.Config(app, port=0, log_config=None, ws="none", timeout_graceful_shutdown=1)
    server = Server(config, app.state.parts.bell.end)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        host, port = server.servers[0].sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join()


def assert_problem(answer: Any, status: int, kind: str, *words: str) -> dict[str, Any]:
    """That the answer is a complete problem; its members."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["type"] == f"urn:mergesearch:problem:{kind}" and problem["status"] == status
    assert problem["title"] and problem["request_id"] == answer.headers["x-request-id"]
    assert problem["instance"].startswith("/")
    for word in words:
        assert word in problem["detail"], problem["detail"]
    return problem
