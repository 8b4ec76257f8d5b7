"""The keys of the kinds of tasks: what is refused and how, which are remembered, and which are moved."""

from typing import Any

import pytest

from evaluation.spec import EvaluationSpec
from merging.errors import InvalidStudy
from search.study import parse_study
from tests.search.factories import study_content

JUDGE = {
    "name": "j",
    "kind": "judge",
    "path": "p.jsonl",
    "url": "https://judge.example/v1",
    "model": "m",
    "rubric": "r",
}
TEXT = {"name": "t", "kind": "text", "path": "t.txt"}


def task(**keys: Any) -> dict[str, Any]:
    return {"tasks": [keys]}


BAD: list[tuple[dict[str, Any], str]] = [
    (task(name="t", kind="texts"), "evaluation.tasks[0].kind: 'texts' is not valid; it should be 'lm_eval', 'text'"),
    (task(name="t", kind="text"), "evaluation.tasks[0].path: is missing for a task of kind text; add it"),
    (
        {"tasks": ["a", {"name": "t", "path": "x"}]},
        "evaluation.tasks[1].path: 'x' is no key of a task of kind lm_eval; its keys: name, kind, weight, metric",
    ),
    (task(**TEXT, num_fewshot=2), "evaluation.tasks[0].num_fewshot: 2 is no key of a task of kind text"),
    (task(**TEXT, metric="acc"), "evaluation.tasks[0].metric: 'acc' is no metric of a text; choose one of bits_per_"),
    (task(**TEXT, fucntion="x"), "evaluation.tasks[0].fucntion: 'x' is an unknown key; did you mean 'function'"),
    (task(name="p", kind="python", function="os.path"), "[0].function: 'os.path' names no function; write module:f"),
    (task(name="p", kind="python", function="../x:f"), "names no function"),
    (task(**JUDGE | {"url": "file:///etc/passwd"}), "is no http(s) URL; write the base URL"),
    (task(**JUDGE | {"url": "http://judge\\@evil.example/v1"}), "holds a user or password"),
    (task(**JUDGE | {"url": "http://judge\\evil.example/v1"}), "is no http(s) URL"),
    (task(**JUDGE | {"url": "http://judge.ex\tample/v1"}), "is no http(s) URL"),
    (task(**JUDGE | {"url": "http://judge\u3002example/v1"}), "is no http(s) URL"),
    (task(**JUDGE | {"url": "http:///v1"}), "is no http(s) URL"),
    (task(**JUDGE | {"url": "http://[::1"}), "is no http(s) URL"),
    (task(**JUDGE | {"url": "http://judge:99999/v1"}), "is no http(s) URL"),
    (task(**JUDGE | {"url": "http://judge:0/v1"}), "is no http(s) URL"),
    (task(**JUDGE | {"url": "http://[::1]judge.example:81/v1"}), "is no http(s) URL"),
    (task(**JUDGE | {"url": "http://judge.example[::1]:81/v1"}), "is no http(s) URL"),
    (task(**JUDGE | {"url": "http://judge%2eexample/v1"}), "is no http(s) URL"),
    (task(**JUDGE | {"url": "http://@judge/v1"}), "holds a user or password"),
    (task(**JUDGE | {"url": "http://me:secret@judge/v1"}), "evaluation.tasks[0].url: holds a user or password"),
    (task(**JUDGE | {"url": "http://judge/v1?key=secret"}), "[0].url: holds more than scheme, host and path"),
    (task(**JUDGE, scale=[float("-inf"), 1]), "is no range"),
    (task(**JUDGE, scale=[10, 1]), "evaluation.tasks[0].scale: (10.0, 1.0) is no range"),
    (task(**JUDGE, scale=[0, float("inf")]), "is no range"),
    (task(**JUDGE, api_key_env="MERGESEARCH_DATABASE_URL"), "api_key_env: 'MERGESEARCH_DATABASE_URL' is no name of"),
    (task(**JUDGE, api_key_env="sk-123"), "[0].api_key_env: is no name of such a variable; let it end with API_KEY"),
    (task(**JUDGE, max_tokens=0), "evaluation.tasks[0].max_tokens: 0"),
    ({"tasks": ["a"], "proxy": {"kind": "text"}}, "evaluation.proxy.kind: 'text' is not valid; it should be 'entropy'"),
    ({"tasks": ["a"], "proxy": {"kinds": "entropy"}}, "evaluation.proxy.kind: is missing"),
    (
        {"tasks": ["a"], "proxy": {"kind": "entropy", "path": "x"}},
        "evaluation.proxy.path: 'x' is an unknown key; use o",
    ),
    ({"tasks": ["proxy"], "proxy": {"kind": "entropy"}}, "evaluation.tasks[0].name: 'proxy' is the name of the task"),
    ({"tasks": [TEXT], "proxy": {"kind": "entropy"}}, "evaluation.proxy: 'entropy' has nothing to read"),
    ({"tasks": ["a"], "fewshot_as_multiturn": True}, "evaluation.fewshot_as_multiturn: True needs a chat template"),
    (
        {"tasks": ["a"], "batch_size": "many"},
        "evaluation.batch_size: 'many' is not valid; it should be a valid integer",
    ),
]


@pytest.mark.parametrize(("evaluation", "said"), BAD, ids=[said[:60] for _, said in BAD])
def test_bad_keys_are_refused_with_key_value_and_remedy(evaluation: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidStudy) as refused:
        parse_study(study_content(evaluation=evaluation))
    assert said in str(refused.value), str(refused.value)


def test_studies_are_remembered_as_before_the_keys_there_are_now() -> None:
    # computed by the version before them: studies in databases must go on
    plain = parse_study(study_content())
    assert plain.frozen_digest() == "8df07684095a620ec1f3647de81bfeb2"
    tasks = ["one", {"name": "two", "weight": 2, "metric": "acc", "num_fewshot": 1}]
    more = {"tasks": tasks, "include_path": "tasks", "documents": 9, "batch_size": 3}
    assert parse_study(study_content(evaluation=more)).frozen_digest() == "45e56e90b171d3ab6da48de977fc29ef"
    limited = parse_study(study_content(constraints=[{"task": "t", "min": 0.5}]))
    assert limited.frozen_digest() == "39304415c69d1bcd724ff8d79ea865fe"
    retained = parse_study(study_content(constraints=[{"task": "t", "retain": 0.5}]))
    assert retained.frozen_digest() not in (plain.frozen_digest(), limited.frozen_digest())


def test_what_decides_scores_is_remembered() -> None:
    named = {"name": "a"}
    variants: list[dict[str, Any]] = [
        {"tasks": [named]},
        {"tasks": [named], "chat_template": True},
        {"tasks": [named], "chat_template": True, "fewshot_as_multiturn": False},
        {"tasks": [named], "proxy": {"kind": "entropy"}},
        {"tasks": [TEXT]},
        {"tasks": [TEXT | {"path": "other.txt"}]},
        {"tasks": [JUDGE]},
        {"tasks": [JUDGE | {"rubric": "another"}]},
        {"tasks": [JUDGE | {"scale": [0, 1]}]},
    ]
    digests = [parse_study(study_content(evaluation=v)).frozen_digest() for v in variants]
    assert len(set(digests)) == len(digests)


def test_files_of_tasks_are_placed_with_their_keys() -> None:
    spec = parse_study(study_content(evaluation={"tasks": ["a", TEXT, JUDGE], "include_path": "tasks"}))
    places: dict[str, str] = {}
    placed = spec.placed(lambda key, path: places.setdefault(key, f"/there/{path}"))
    assert [t.path for t in placed.evaluation.tasks] == [None, "/there/t.txt", "/there/p.jsonl"]
    assert {"evaluation.include_path", "evaluation.tasks[1].path", "evaluation.tasks[2].path"} <= set(places)


def test_a_spec_survives_the_database() -> None:
    evaluation = {"tasks": ["a", JUDGE | {"scale": [0, 5]}], "proxy": {"kind": "entropy"}, "batch_size": 7}
    spec = parse_study(study_content(evaluation=evaluation))
    assert EvaluationSpec.model_validate(spec.to_json()["evaluation"]) == spec.evaluation
    assert spec.evaluation.most_rows == 7 and parse_study(study_content()).evaluation.most_rows is None


def test_examples_are_turns_of_a_chat_unless_told_otherwise_as_stock_lm_eval_has_it() -> None:
    def turns(**keys: Any) -> bool:
        return EvaluationSpec.model_validate({"tasks": ["a"], **keys}).fewshot_as_multiturn

    assert not turns() and turns(chat_template=True) and turns(chat_template="yes")
    assert not turns(chat_template=True, fewshot_as_multiturn=False)
