"""Loading a study's tasks: what is refused and how, what the parts and the digest depend on."""

import importlib
import json
import logging
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.spec import EvaluationSpec, TaskSpec
from evaluation.suite import Suite
from merging.errors import InvalidStudy
from tests.evaluation.conftest import KEY, Tiny, harness


def load(tiny: Tiny, *tasks: str | TaskSpec, root: Path | None = None, key: str = KEY, **settings: Any) -> Suite:
    return Suite.load(tiny.spec(*tasks, **settings), root or tiny.root, key)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "tiny_group",
            "evaluation.tasks[1].name: 'tiny_group' is a group of tasks; name its tasks instead: tiny_choice",
        ),
        (TaskSpec(name="tiny_choice", metric="f1"), "evaluation.tasks[1].metric: 'f1' is no metric of tiny_choice"),
        (
            TaskSpec(name="tiny_filters", metric="exact_match,none"),
            "choose one of exact_match,strict, exact_match,last",
        ),
        (TaskSpec(name="tiny_fixed", num_fewshot=2), "evaluation.tasks[1].num_fewshot: 2 is fixed at 0 by the task"),
        ("tiny_broken", "evaluation.tasks[1].name: 'tiny_broken' cannot be loaded (FileNotFoundError: "),
        ("tiny_unsafe", "evaluation.tasks[1].name: 'tiny_unsafe' runs code that a model wrote"),
        ("tiny_untold", "evaluation.tasks[1].name: 'tiny_untold' cannot be loaded (UndefinedError: 'no_such_field'"),
        (
            TaskSpec(name="tiny_shots", num_fewshot=50),
            "cannot build its prompts (ValueError: Sample larger than",
        ),
        ("tiny_generate", "evaluation.tasks[1].name: 'tiny_generate' is named twice"),
    ],
)
def test_what_cannot_work_is_refused_by_key_value_and_remedy(tiny: Tiny, task: Any, message: str) -> None:
    with pytest.raises(InvalidStudy) as refused:
        load(tiny, "tiny_generate", task)
    assert message in str(refused.value)


def test_an_unknown_task_is_refused_with_the_near_ones(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    # lm-eval's own index takes seconds to build; here it is enough that it does not have the task either
    monkeypatch.setattr("lm_eval.tasks.manager.__file__", str(tiny.root / "nothing" / "manager.py"))
    with pytest.raises(InvalidStudy) as refused:
        load(tiny, "tiny_generte")
    assert str(refused.value).startswith(
        "evaluation.tasks[0].name: 'tiny_generte' is no lm-eval task; did you mean tiny_g"
    )


def test_a_missing_folder_is_refused(tiny: Tiny) -> None:
    spec = EvaluationSpec(tasks=(TaskSpec(name="tiny_text"),), include_path="elsewhere")
    with pytest.raises(InvalidStudy, match=r"evaluation\.include_path: 'elsewhere' is not a folder"):
        Suite.load(spec, tiny.root, KEY)


def test_too_few_documents_are_refused(tiny: Tiny) -> None:
    with pytest.raises(InvalidStudy, match=r"has no holdout document left .* raise evaluation.documents"):
        load(tiny, "tiny_text", documents=2, holdout=0.01)


def test_parts_are_capped_split_and_shared_between_tasks_with_the_same_documents(tiny: Tiny) -> None:
    suite = load(tiny, "tiny_generate", "tiny_filters", "tiny_text", documents=40)
    for task in ("tiny_generate", "tiny_text"):
        search, holdout = suite.documents(task, "search"), suite.documents(task, "holdout")
        assert len(search) + len(holdout) == 40 and not set(search) & set(holdout)
    assert suite.splits["tiny_generate"] == suite.splits["tiny_filters"]


def test_the_first_metric_and_filter_are_the_default(tiny: Tiny) -> None:
    suite = load(tiny, "tiny_filters", "tiny_text", TaskSpec(name="tiny_choice", metric="acc_norm"))
    assert [t.shown_metric for t in suite.tasks] == ["exact_match,strict", "bits_per_byte", "acc_norm"]
    assert [t.higher_is_better for t in suite.tasks] == [True, False, True]
    assert {t: a.name for t, a in suite.aggregations().items()} == {
        "tiny_filters": "mean",
        "tiny_text": "bits_per_byte",
        "tiny_choice": "mean",
    }


def test_the_digest_names_what_scores_depend_on(tiny: Tiny, tmp_path: Path) -> None:
    first = load(tiny, "tiny_shots").digest
    assert load(tiny, "tiny_shots").digest == first
    others = [
        load(tiny, "tiny_generate").digest,
        load(tiny, "tiny_shots", key="other").digest,
        load(tiny, "tiny_shots", documents=30).digest,
        load(tiny, TaskSpec(name="tiny_shots", num_fewshot=3)).digest,
    ]
    assert len({first, *others}) == 5
    # weight and batch size do not change what a document is given; neither does the folder the tasks lie in
    assert load(tiny, TaskSpec(name="tiny_shots", weight=3)).digest == first
    moved = _moved(tiny, tmp_path)
    assert load(tiny, "tiny_shots", root=tmp_path).digest == first
    shots = [json.loads(line) for line in moved.read_text().splitlines()]
    moved.write_text("".join(json.dumps(row | {"answer": "ba ba"}) + "\n" for row in shots))
    assert load(tiny, "tiny_shots", root=tmp_path).digest != first


def test_the_digest_of_a_suite_stays(tiny: Tiny) -> None:
    # a change here would end every study that is remembered with its digest
    tasks = ("tiny_generate", "tiny_shots", "tiny_choice", "tiny_text", "tiny_likely")
    assert load(tiny, *tasks).digest == "2fc36eec8a9c4cdbacd351684effd69d"


def test_a_tasks_digest_depends_on_itself_alone(tiny: Tiny, tmp_path: Path) -> None:
    first = load(tiny, "tiny_shots", "tiny_choice").task_digests
    others = load(tiny, "tiny_text", "tiny_shots", key="other", documents=30, holdout=0.5).task_digests
    assert first["tiny_shots"] == others["tiny_shots"]
    changed = [
        load(tiny, TaskSpec(name="tiny_shots", num_fewshot=3)).task_digests["tiny_shots"],
        load(tiny, TaskSpec(name="tiny_choice", metric="acc_norm")).task_digests["tiny_choice"],
    ]
    _moved(tiny, tmp_path)
    yaml = tmp_path / "tasks" / "tiny_shots.yaml"
    yaml.write_text(yaml.read_text().replace("version: 1.0", "version: 1.1"))
    changed.append(load(tiny, "tiny_shots", root=tmp_path).task_digests["tiny_shots"])
    assert len({*first.values(), *changed}) == 5
    # a document outside of the cap counts too: which are taken is for the study to say, not for the task
    data = tmp_path / "tasks" / "choices.jsonl"
    last = load(tiny, "tiny_choice", documents=20).splits["tiny_choice"].order[-1]
    out = next(i for i in range(60) if i not in load(tiny, "tiny_choice", documents=20).splits["tiny_choice"].order)
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    for doc_id in (out, last):
        rows[doc_id]["label"] = (rows[doc_id]["label"] + 1) % 4
        data.write_text("".join(json.dumps(row) + "\n" for row in rows))
        now = load(tiny, "tiny_choice", root=tmp_path, documents=20).task_digests["tiny_choice"]
        assert now not in (first["tiny_choice"], *changed)
        changed.append(now)


HELPED = """\
include: tiny_generate.yaml
task: helped
process_results: !function scoring.results
metric_list: [{metric: hit, aggregation: mean, higher_is_better: true}]
"""
SCORING = """\
import helped_rules

def results(doc, answers):
    return {"hit": share(doc, answers[0])}

def share(doc, answer):
    return helped_rules.%s(doc, answer)
"""


def test_a_tasks_digest_depends_on_what_its_functions_call(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, rules = _moved(tiny, tmp_path).parent, tmp_path / "rules" / "helped_rules.py"
    rules.parent.mkdir()
    monkeypatch.syspath_prepend(rules.parent)
    (tasks / "helped.yaml").write_text(HELPED)

    def found(called: str, rule: str) -> str:
        (tasks / "scoring.py").write_text(SCORING % called)
        rules.write_text(f"def {called}(doc, answer): return {rule}\n")
        for name in ("helped_rules", str(tasks / "scoring")):  # as in another process
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        return load(tiny, "helped", root=tmp_path).task_digests["helped"]

    first = found("exact", "1.0")
    assert found("exact", "1.0") == first
    assert len({first, found("loose", "1.0"), found("exact", "float(bool(answer))")}) == 3


def test_a_users_own_mean_is_not_taken_for_lm_evals(tiny: Tiny, tmp_path: Path) -> None:
    tasks = _moved(tiny, tmp_path).parent
    (tasks / "helped.yaml").write_text(HELPED.replace("aggregation: mean", "aggregation: !function scoring.mean"))
    (tasks / "scoring.py").write_text(
        "def results(doc, answers): return {'hit': 1.0}\ndef mean(items): return max(items)\n"
    )
    assert load(tiny, "helped", root=tmp_path).aggregations()["helped"].name == "own mean"


def test_documents_have_an_order_of_scoring(tiny: Tiny) -> None:
    suite = load(tiny, "tiny_generate", "tiny_text")
    wanted = suite.wanted("search")
    for task in ("tiny_generate", "tiny_text"):
        assert tuple(sorted(suite.order(task, "search"))) == suite.documents(task, "search") == wanted.documents[task]
        assert suite.order(task, "search") != suite.documents(task, "search")
    assert wanted.missing == wanted.documents and wanted.reused == 0


def _moved(tiny: Tiny, root: Path) -> Path:
    """A copy of the tasks in another folder; -> its few-shot examples."""
    tasks = root / "tasks"
    shutil.copytree(tiny.root / "tasks", tasks)
    for file in tasks.glob("*.yaml"):
        file.write_text(file.read_text().replace(str(tiny.root / "tasks"), str(tasks)))
    return tasks / "shots.jsonl"


def test_the_override_of_shots_reaches_the_prompts(tiny: Tiny) -> None:
    for shots in (0, 1, 3):
        suite = load(tiny, TaskSpec(name="tiny_shots", num_fewshot=shots))
        prompts = [harness(suite, "tiny_shots").instances[i][0].args[0] for i in range(60)]
        assert {prompt.count("A") for prompt in prompts} == {shots + 1}


def test_loading_leaves_random_states_streams_and_logging_alone(tiny: Tiny, capfd: pytest.CaptureFixture[str]) -> None:
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    before = random.getstate(), np.random.rand(), torch.get_rng_state().tolist()
    np.random.seed(5)
    handlers = list(logging.getLogger().handlers)
    load(tiny, "tiny_shots")
    assert (random.getstate(), np.random.rand(), torch.get_rng_state().tolist()) == before
    assert logging.getLogger().handlers == handlers
    assert capfd.readouterr() == ("", "")


def test_several_processes_load_at_once(tiny: Tiny, tmp_path: Path) -> None:
    # datasets locks its cache, so workers that start together may share it
    code = (
        "import datasets\n"
        f"rows = datasets.load_dataset('json', data_files={{'test': {str(tiny.root / 'tasks' / 'texts.jsonl')!r}}})\n"
        "print(len(rows['test']))"
    )
    environment = tiny.environment | {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
    started = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate(timeout=100)[0] for process in started] == ["60\n"] * 3
