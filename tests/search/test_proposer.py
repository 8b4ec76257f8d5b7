"""The strategy `proposer`, against a stand-in endpoint on a real socket."""

import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from db.records import Trial
from db.store import Store
from merging.catalog import Scalar
from merging.errors import InvalidStudy
from search.controller import Search, Told
from search.opening import open_search
from search.space import Space, dimensions, make_space
from search.starts.pool import starts
from search.strategies.contract import Observation, Proposal
from search.strategies.opening import Opening
from search.strategies.proposer.search import Proposer, is_due
from search.strategies.proposer.settings import require_key
from search.study import parse_study
from tests.evaluation.evaluators.standin import Answer, StandIn, serving
from tests.search.driven import drive, replayed
from tests.search.factories import LAYERS, bowl, create, make_spec, run_search, scored, space_of, study_content

BEST = {"a": 0.7, "b": 0.2, "c": 0.4}
SECRET = "sk-very-secret"


@pytest.fixture
def model() -> Iterator[StandIn]:
    with serving() as standin:
        yield standin


def opening_of(url: str, trials: int = 14, space: Space | None = None, **options: Any) -> Opening:
    space = space or space_of()
    return Opening(space, 3, starts(space), trials, options={"url": url, "model": "big", **options})


def point(level: float) -> dict[str, float]:
    return {f"task_arithmetic.weight[{name}]": round(best - level, 6) for name, best in BEST.items()}


def said(*points: Any) -> Answer:
    return Answer(json.dumps(list(points)))


def counting() -> Callable[[dict[str, Any]], Answer]:
    """Each answer holds two new points, each nearer to the best."""
    levels = iter(0.2 - 0.01 * i for i in range(20))
    return lambda body: Answer(
        f"<think>[1]</think> Here:\n```json\n{json.dumps([point(next(levels)) for _ in '12'])}\n```"
    )


def by_bowl(recipe: Any) -> float:
    return bowl(recipe, BEST)


def shown(model: StandIn, request: int) -> dict[str, Any]:
    """The parts of what a request showed."""
    lines = model.chats[request][1]["content"].splitlines()
    return {name: json.loads(part) for name, _, part in (line.partition(": ") for line in lines)}


def test_the_model_is_asked_in_batches_and_shown_the_space_and_the_trials(
    model: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROPOSER_API_KEY", SECRET)
    model.answer = counting()
    opening = opening_of(model.url, api_key_env="PROPOSER_API_KEY", batch=2, history=3, temperature=0.3)
    told = drive(Proposer(opening), opening, by_bowl)
    own = told[len(opening.starts) :]
    assert {seen.origin for seen in own} == {"x:model"} and len(model.requests) == len(own) // 2
    assert [seen.params for seen in own[:3]] == [point(0.2), point(0.19), point(0.18)]
    path, headers, body = model.requests[0]
    assert (path, headers["Authorization"]) == ("/v1/chat/completions", f"Bearer {SECRET}")
    assert (body["model"], body["temperature"]) == ("big", 0.3) and "list of 2 new" in model.chats[0][0]["content"]
    first, last = shown(model, 0), shown(model, len(model.requests) - 1)
    assert [d["name"] for d in first["space"]] == [d.name for d in dimensions(opening.space)]
    assert all(d["low"] <= 0.0 < d["high"] and d["type"] == "float" for d in first["space"])
    values = sorted((seen.value or 0.0 for seen in told[:-2] if seen.params), reverse=True)
    ranked = last["best trials, the best first"]
    assert [trial["value"] for trial in ranked] == [float(f"{value:.4g}") for value in values[:3]]
    assert len(last["latest other trials"]) == 0, "the latest are the best"
    assert SECRET not in json.dumps(model.chats)


def test_scores_of_tasks_stopped_and_failed_trials_and_open_ones_are_shown(model: StandIn) -> None:
    model.answer = lambda body: said(point(0.1))
    strategy = Proposer(opening_of(model.url))
    reads: list[int] = []

    def read() -> Any:
        reads.append(1)
        return scored(0.25).scores

    for number, value in enumerate([0.5, None, 0.4]):
        strategy.reserve(number, Proposal(dict(point(0.15 - number / 100)), None))
        seen = Observation(number, "x", dict(point(0.15 - number / 100)), None, value, number == 2, scores=read)
        strategy.observe(seen)
    strategy.reserve(3, Proposal(dict(point(0.05)), None))
    assert not reads
    assert isinstance(strategy.propose(20), Proposal)
    parts = shown(model, 0)
    best = parts["best trials, the best first"]
    assert [trial["value"] for trial in best] == [0.5, 0.4, None] and "stopped_early" not in best[0]
    assert best[1]["stopped_early"] and best[0]["scores"] == {"t": 0.25} and "scores" not in best[2]
    assert parts["being tried now"] == [point(0.05)] and len(reads) == 2


def test_refused_and_repeated_proposals_are_left_out_and_named_in_the_next_prompt(model: StandIn) -> None:
    answers = iter([said(point(0.1), {}, point(0.1), point(0.05)), said(point(0.04))])
    model.answer = lambda body: next(answers)
    strategy = Proposer(opening_of(model.url))
    found = [strategy.propose(number) for number in range(10, 13)]
    assert [p.params for p in found if isinstance(p, Proposal)] == [point(0.1), point(0.05), point(0.04)]
    refused = shown(model, 1)["refused of your last answer"]
    assert len(refused) == 2 and "is missing" in refused[0] and "same as another" in refused[1]
    assert len(model.requests) == 2


BROKEN = [
    Answer(status=500),
    Answer(status=401, body=b"no"),
    Answer(drop=True),
    Answer("nothing of use"),
    Answer(body=b"{}"),
    said(),
    said({}),
    Answer(status=302, headers={"Location": "http://127.0.0.1:1/"}),
]


@pytest.mark.parametrize("answer", BROKEN)
def test_where_the_model_gives_nothing_tpe_proposes_and_the_model_is_asked_less_often(
    model: StandIn, answer: Answer
) -> None:
    model.answer = lambda body: answer
    opening = opening_of(model.url, 24)
    told = drive(Proposer(opening), opening, by_bowl)
    own = told[len(opening.starts) :]
    assert {seen.origin for seen in own} == {"x:tpe"} and len({str(seen.params) for seen in own}) == len(own)
    assert len(model.requests) == sum(is_due(i) for i in range(len(own)))


def test_the_pauses_double_and_have_an_end() -> None:
    due = [i for i in range(200) if is_due(i)]
    assert due == [0, 2, 6, 14, 30, 62, 94, 126, 158, 190]


def test_nobody_waits_for_an_answer_that_does_not_come(model: StandIn) -> None:
    over = threading.Event()

    def hang(body: dict[str, Any]) -> Answer:
        assert over.wait(30)
        return said(point(0.1))

    model.answer = hang
    strategy = Proposer(opening_of(model.url), seconds=0.2)
    found = strategy.propose(10)
    assert not over.is_set() and isinstance(found, Proposal) and found.by == "tpe"
    over.set()


def test_a_missing_key_and_an_endpoint_that_is_gone_leave_it_to_tpe(caplog: pytest.LogCaptureFixture) -> None:
    with serving() as gone:
        pass
    for opening in (opening_of(gone.url), opening_of(gone.url, api_key_env="NO_SUCH_API_KEY")):
        found = Proposer(opening).propose(10)
        assert isinstance(found, Proposal) and found.by == "tpe"
    assert [getattr(record, "action", "") for record in caplog.records] == ["proposer.silent"] * 2
    assert "ConnectError" in caplog.text and "NO_SUCH_API_KEY is not set" in caplog.text


@pytest.mark.parametrize("stop", [6, 8, 9])
def test_a_replay_asks_nobody_and_goes_on_the_same(model: StandIn, stop: int) -> None:
    """Every answer has one point; at some number of trials the model falls silent."""
    levels = iter(0.2 - 0.01 * i for i in range(20))
    model.answer = lambda body: said(point(next(levels))) if len(model.requests) < 4 else Answer("no")
    opening = opening_of(model.url, stop)
    strategy = Proposer(opening)
    told = drive(strategy, opening, by_bowl)
    asked = len(model.requests)
    twin = replayed(Proposer(opening), opening, told)
    assert len(model.requests) == asked
    model.answer = lambda body: Answer("no")
    for number in range(stop, stop + 6):
        one, other = strategy.propose(number), twin.propose(number)
        assert isinstance(one, Proposal) and one == other and one.by == "tpe"
        for each in (strategy, twin):
            each.observe(Observation(number, "x:tpe", one.params, one.recipe, by_bowl(one.recipe)))


def test_a_study_that_is_broken_off_goes_on_and_asks_for_what_is_left_alone(model: StandIn, store: Store) -> None:
    model.answer = counting()
    search = {"strategy": "proposer", "trials": 12, "options": {"url": model.url, "model": "big", "batch": 2}}
    spec = make_spec(search=search)
    study, space = create(store, spec), make_space(spec, LAYERS)

    def stop(told: Told) -> None:
        if told.trial.number == 6:
            raise KeyboardInterrupt

    def run(on_told: Callable[[Told], None]) -> tuple[Trial, ...]:
        begin, strategy = open_search(spec, space)
        found = Search(study, spec, 1, space, begin, strategy, on_told)
        return run_search(found, store, lambda recipe, part: scored(by_bowl(recipe)))

    with pytest.raises(KeyboardInterrupt):
        run(stop)
    before, asked = store.trials.all(study.id), len(model.requests)
    begun = sum(not t.origin.startswith("proposer") for t in before)
    assert asked == (len(before) - begun + 1) // 2
    trials = run(lambda told: None)
    assert trials[: len(before)] == before[:-1] + trials[len(before) - 1 : len(before)]
    assert {t.origin for t in trials[begun:]} == {"proposer:model"} and len(trials) == 12
    assert len(model.requests) == asked + (12 - len(before) + 1) // 2
    levels = {str(t.params) for t in trials[begun:]}
    assert len(levels) == 12 - begun, "what was left of the answer before was not tried, and nothing twice"


def test_a_long_history_is_cut_to_what_a_prompt_may_hold(model: StandIn) -> None:
    space = space_of(space={"layers": "each", "modules": "split"})
    model.answer = lambda body: Answer("no")
    opening = opening_of(model.url, 10, space, history=1000)
    strategy = Proposer(opening)
    params: dict[str, Scalar] = {d.name: 0.123456 for d in dimensions(space)}
    for number in range(100):
        strategy.observe(Observation(number, "x", params | {next(iter(params)): number / 100}, None, number / 100))
    strategy.propose(100)
    parts = shown(model, 0)
    assert len(model.chats[0][1]["content"]) <= 60_000
    best = parts["best trials, the best first"]
    assert 10 < len(best) < 100 and best[0]["value"] == 0.99


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "search.options.url: is missing"),
    ({"url": "https://m.example/v1"}, "search.options.model: is missing"),
    ({"url": "file:///etc/passwd", "model": "m"}, "search.options.url: 'file:///etc/passwd' is no http"),
    ({"url": "http://me:secret@m/v1", "model": "m"}, "search.options.url: holds a user or password"),
    ({"url": "http://m/v1", "model": "m", "api_key_env": "HOME"}, "search.options.api_key_env: 'HOME' is no name"),
    ({"url": "http://m/v1", "model": "m", "api_key_env": "sk-123"}, "search.options.api_key_env: is no name"),
    ({"url": "http://m/v1", "model": "m", "batch": 0}, "search.options.batch: 0 is out of range"),
]


@pytest.mark.parametrize(("options", "why"), BAD)
def test_bad_options_are_refused_where_the_study_is_read(options: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidStudy) as refused:
        parse_study(study_content(search={"strategy": "proposer", "options": options}))
    assert why in str(refused.value) and "secret" not in str(refused.value)


def test_a_run_needs_the_key_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"api_key_env": "PROPOSER_API_KEY"}
    monkeypatch.delenv("PROPOSER_API_KEY", raising=False)
    require_key("tpe", {})
    with pytest.raises(InvalidStudy, match="'PROPOSER_API_KEY' is not set in the environment"):
        require_key("proposer", options)
    monkeypatch.setenv("PROPOSER_API_KEY", SECRET)
    require_key("proposer", options)
