"""The study file: what it accepts, and that whatever is wrong is said with key, value and remedy."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from merging.errors import InvalidStudy
from search.modelsspec import ModelsSpec
from search.study import load_study, parse_study
from tests.search.factories import study_content


def test_the_designs_example_is_read_with_its_defaults() -> None:
    spec = parse_study(
        study_content(
            models={"base": "zoo/base", "experts": ["zoo/add", {"path": "zoo/sort", "name": "sorting"}]},
            space={"methods": ["task_arithmetic", "ties"], "layers": "each", "bounds": {"ties.weight": [0, 1.2]}},
        )
    )
    assert [e.name for e in spec.models.experts] == ["add", "sorting"]
    assert spec.space.layers == "each" and spec.space.modules == "together"
    assert spec.objective == "mean" and spec.evaluation.holdout == 0.3


def test_a_study_that_names_no_methods_gets_the_recommended_ones() -> None:
    content = study_content()
    del content["space"]
    assert set(parse_study(content).space.method_names) >= {"task_arithmetic", "ties"}


def test_a_task_may_be_a_bare_name() -> None:
    spec = parse_study(study_content(evaluation={"tasks": ["one", {"name": "two", "weight": 2}]}))
    assert [(t.name, t.weight) for t in spec.evaluation.tasks] == [("one", 1.0), ("two", 2.0)]


def test_a_memory_limit_is_bytes_or_a_size_and_a_codec_may_be_its_bare_name() -> None:
    def models(**keys: Any) -> ModelsSpec:
        return parse_study(study_content(models=keys)).models

    assert models(memory="24GiB").memory == models(memory=24 * 2**30).memory == 25769803776
    assert models(memory="1.5MB").memory == 1_500_000
    assert models(compress="sparse").compress == models(compress={"codec": "sparse"}).compress
    plain = parse_study(study_content())
    assert plain.models.memory is None and plain.models.compress is None
    digests = {parse_study(study_content(models=keys)).frozen_digest() for keys in ({}, {"memory": 5}, {"memory": 6})}
    assert len(digests) == 3 and plain.frozen_digest() in digests


def test_folders_are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "study.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(study_content(models={"base": "../base"})))
    spec = load_study(path)
    assert spec.models.base == str(tmp_path / "base")
    assert spec.models.experts[0].path == str(tmp_path / "sub" / "experts" / "a")


BAD: list[tuple[dict[str, Any], list[str]]] = [
    ({"serch": {}}, ["serch", "unknown key", "'search'"]),
    ({"search": {"trails": 5}}, ["search.trails", "unknown key", "trials"]),
    ({"space": {"methods": ["tis"]}}, ["space.methods[0]", "'tis'", "ties"]),
    ({"space": {"methods": []}}, ["space.methods", "at least one"]),
    ({"search": {"int": 3}}, ["search.int", "unknown key"]),
    ({"space": {"methods": ["ties", "ties"]}}, ["space.methods[1]", "'ties'", "twice"]),
    ({"space": {"methods": ["slerp"]}}, ["space.methods[0]", "slerp", "3"]),
    ({"space": {"layers": 0}}, ["space.layers", "0"]),
    ({"space": {"layers": "all"}}, ["space.layers", "all"]),
    ({"space": {"methods": ["ema"], "bounds": {"ema.weight": [1, 5]}}}, ["ema.weight", "no numeric parameter", "rate"]),
    ({"space": {"methods": ["consensus"], "bounds": {"consensus.k": [1.5, 2]}}}, ["consensus.k", "whole numbers"]),
    ({"space": {"methods": ["ram"], "bounds": {"ram.epsilon": [0, 1e-4]}}}, ["ram.epsilon", "above 0"]),
    ({"space": {"fixed": {"ties.scope": "row"}}}, ["space.fixed.ties.scope", "names no method", "task_arithmetic"]),
    ({"space": {"methods": ["ties"], "fixed": {"ties.weight": 1.0}}}, ["names no parameter of ties", "density"]),
    ({"space": {"methods": ["ties"], "fixed": {"ties.scope": "column"}}}, ["'column' is not a choice", "'row'"]),
    ({"space": {"gradient": 3, "layers": 2}}, ["space.layers", "2", "space.gradient"]),
    ({"space": {"gradient": 1}}, ["space.gradient", "1", "greater than or equal to 2"]),
    ({"space": {"methods": ["layer_swap", "passthrough"]}}, ["passthrough", "listed twice"]),
    ({"space": {"bounds": {"ties.weight": [0, 1]}}}, ["space.bounds.ties.weight", "task_arithmetic"]),
    ({"space": {"bounds": {"task_arithmetic.wait": [0, 1]}}}, ["task_arithmetic.wait", "weight"]),
    (
        {"space": {"bounds": {"task_arithmetic.weight": [1, 0]}}},
        ["task_arithmetic.weight", "[1.0, 0.0]", "low <= high"],
    ),
    ({"space": {"bounds": {"task_arithmetic.weight": [0, 99]}}}, ["task_arithmetic.weight", "99", "[-10, 10]"]),
    (
        {"space": {"methods": ["layer_swap"], "bounds": {"layer_swap.weight": [0, 1]}}},
        ["layer_swap.weight", "no numeric parameter", "scale"],
    ),
    ({"search": {"trials": 0}}, ["search.trials", "0", "1"]),
    ({"search": {"strategy": "magic"}}, ["search.strategy", "magic", "tpe"]),
    ({"evaluation": {"tasks": []}}, ["evaluation.tasks", "at least one"]),
    ({"evaluation": {"tasks": [{"name": "t"}, {"name": "t"}]}}, ["evaluation.tasks[1].name", "'t'", "once"]),
    ({"evaluation": {"tasks": [{"name": "t", "weight": 0}]}}, ["evaluation.tasks", "weight"]),
    ({"evaluation": {"tasks": [{"name": "t", "metrics": "acc"}]}}, ["evaluation.tasks[0].metrics", "'metric'"]),
    ({"evaluation": {"tasks": [{"name": "t"}], "holdout": 1.5}}, ["evaluation.holdout", "1.5"]),
    ({"models": {"experts": []}}, ["models.experts", "at least one"]),
    ({"models": {"experts": ["x/a", "y/a"]}}, ["models.experts[1].name", "'a'", "name"]),
    ({"models": {"experts": [{"path": "x/a", "nome": "b"}]}}, ["models.experts[0].nome", "'name'"]),
    ({"models": {"memory": "much"}}, ["models.memory", "'much'", "bytes", "24GiB"]),
    ({"models": {"memory": 0}}, ["models.memory", "0", "24GiB"]),
    ({"models": {"memory": True}}, ["models.memory", "True", "24GiB"]),
    ({"models": {"compress": "zip"}}, ["models.compress.codec", "'zip'", "bitdelta"]),
    ({"models": {"compress": {"codec": "sparse", "setting": {}}}}, ["models.compress.setting", "'settings'"]),
    (
        {"models": {"compress": {"codec": "sparse", "settings": {"density": 2}}}},
        ["models.compress.settings.density", "2", "[1e-06, 1]"],
    ),
    ({"objective": "median"}, ["objective", "median", "mean"]),
    ({"search": {"prune": "sometimes"}}, ["search.prune", "sometimes", "paired_test"]),
    ({"search": {"prune": True, "strategy": "greedy_soup"}}, ["search.prune", "halving", "leave it out"]),
    ({"search": {"prune": "halving"}, "objective": "borda"}, ["search.prune", "halving", "borda"]),
    ({"search": {"strategy": "cmaes"}, "objective": "pareto"}, ["search.strategy", "cmaes", "tpe"]),
    (
        {"search": {"strategy": "layer_order"}, "evaluation": {"backend": "vllm"}},
        ["search.strategy", "layer_order", "vllm", "evaluation.backend"],
    ),
    ({"constraints": [{"task": "u", "min": 0.5}]}, ["constraints[0].task", "'u'"]),
    ({"constraints": [{"task": "t", "mim": 0.5}]}, ["constraints[0].mim", "'min'"]),
    ({"name": "../x"}, ["name", "../x"]),
    ({"schema": "mergesearch/study/v9"}, ["schema", "v9", "mergesearch/study/v1"]),
]


@pytest.mark.parametrize(("sections", "said"), BAD, ids=[str(b[0])[:50] for b in BAD])
def test_bad_input_is_refused_with_key_value_and_remedy(sections: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(InvalidStudy) as caught:
        parse_study(study_content(**sections))
    for part in said:
        assert part in str(caught.value), str(caught.value)


def test_a_missing_section_is_named() -> None:
    content = study_content()
    del content["models"]
    with pytest.raises(InvalidStudy, match=r"^models: is missing"):
        parse_study(content)


def test_a_key_given_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study_content()) + "objective: worst\nobjective: mean\n")
    with pytest.raises(InvalidStudy, match="'objective' is given twice"):
        load_study(path)


@pytest.mark.parametrize("base", ["~nosuchuser/x", "a\0b", "x" * 5000])
def test_what_is_no_path_is_refused(base: str, tmp_path: Path) -> None:
    path = tmp_path / "study.json"
    path.write_text(json.dumps(study_content(models={"base": base})))
    with pytest.raises(InvalidStudy, match="models"):
        load_study(path)


@pytest.mark.parametrize("text", ["a: [", "- just\n- a list", "\x00"])
def test_what_is_no_study_file_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InvalidStudy):
        load_study(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match=r"nowhere\.yaml"):
        load_study(tmp_path / "nowhere.yaml")


def test_trials_and_parallel_may_change_while_a_study_lives_and_the_rest_may_not() -> None:
    digest = parse_study(study_content()).frozen_digest()
    assert parse_study(study_content(search={"trials": 99, "parallel": 4})).frozen_digest() == digest
    assert parse_study(study_content(search={"seed": 4})).frozen_digest() != digest
    assert parse_study(study_content(space={"layers": 2})).frozen_digest() != digest


def test_a_study_without_the_newer_keys_is_remembered_as_before() -> None:
    spec = parse_study(study_content())
    assert spec.frozen_digest() == "8df07684095a620ec1f3647de81bfeb2"
    assert parse_study(study_content(search={"prune": "off"})).frozen_digest() != spec.frozen_digest()
    bound = parse_study(study_content(constraints=[{"task": "t", "min": 0.5}]))
    assert bound.frozen_digest() != spec.frozen_digest()


@pytest.mark.parametrize(
    ("written", "strategy", "objective", "racing"),
    [
        (None, "tpe", "mean", "halving"),
        (None, "cmaes", "normalized_mean", "halving"),
        (None, "greedy_soup", "mean", "off"),
        (None, "tpe", "kemeny", "off"),
        (None, "tpe", "pareto", "off"),
        (False, "tpe", "mean", "off"),
        (True, "tpe", "worst", "halving"),
        ("halving", "random", "mean", "halving"),
        ("off", "greedy_soup", "borda", "off"),
    ],
)
def test_how_a_study_races(written: Any, strategy: str, objective: str, racing: str) -> None:
    spec = parse_study(study_content(search={"prune": written, "strategy": strategy}, objective=objective))
    assert spec.racing == racing
