"""Prompts through a chat template: what it takes, and what the digests make of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.calibration import examples
from evaluation.chat import open_chat, template_folder
from evaluation.suite import Suite
from merging.errors import InvalidModel, InvalidStudy
from tests.evaluation.conftest import KEY, Tiny, harness
from tests.evaluation.tiny import CHAT, write_chat


def load(tiny: Tiny, folder: Path, **settings: Any) -> Suite:
    return Suite.load(tiny.spec("tiny_shots", chat_template=True, **settings), tiny.root, KEY, folder)


def test_the_template_is_part_of_every_digest(tiny: Tiny, tmp_path: Path, live: tuple[Any, Any]) -> None:
    write_chat(live[1], tmp_path / "one")
    write_chat(live[1], tmp_path / "two", CHAT.replace("content'] }} .", "content'] }} . ."))
    plain = Suite.load(tiny.spec("tiny_shots"), tiny.root, KEY, tmp_path / "one")
    suites = [
        plain,
        load(tiny, tmp_path / "one"),
        load(tiny, tmp_path / "two"),
        load(tiny, tmp_path / "one", fewshot_as_multiturn=False),
    ]
    assert len({suite.digest for suite in suites}) == len({suite.task_digests["tiny_shots"] for suite in suites}) == 4
    again = load(tiny, tmp_path / "one")
    assert (again.digest, again.task_digests) == (suites[1].digest, suites[1].task_digests)


def test_a_template_that_asks_for_the_date_is_told_the_same_every_day(tmp_path: Path, live: tuple[Any, Any]) -> None:
    dated = "{{ strftime_now('%d %b %Y') }}" + CHAT
    write_chat(live[1], tmp_path / "dated", dated)
    chat = open_chat(tmp_path / "dated", False)
    assert chat.render([{"role": "user", "content": "ba"}]) == "26 Jul 2024<s> Q ba . A"
    assert chat.render([{"role": "user", "content": "ba"}], add_generation_prompt=False).startswith("26 Jul 2024<s> Q")


def test_a_folder_without_a_template_or_tokenizer_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match=r"evaluation\.chat_template: True needs a chat template, and .* has none"):
        load(tiny, tiny.model)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidModel, match="has no usable tokenizer"):
        load(tiny, tmp_path / "empty")
    with pytest.raises(ValueError, match="needs the folder"):
        Suite.load(tiny.spec("tiny_shots", chat_template=True), tiny.root, KEY)


def test_the_template_is_that_of_the_merges_vocabulary(tmp_path: Path) -> None:
    base, *others = (tmp_path / name for name in ("base", "a", "b"))
    for folder in (base, *others):
        folder.mkdir()
        (folder / "tokenizer_config.json").write_text("{}")
    experts = {folder.name: folder for folder in others}
    assert template_folder(base, experts, "base") == base and template_folder(base, experts, "b") == others[1]
    assert template_folder(base, experts, "union") == base
    (others[1] / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHAT}))
    assert template_folder(base, experts, "union") == others[1] and template_folder(base, experts, "base") == base
    (base / "chat_template.jinja").write_text(CHAT)
    assert template_folder(base, experts, "union") == base


def test_a_template_that_knows_no_system_role_goes_without_it(tmp_path: Path, live: tuple[Any, Any]) -> None:
    picky = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + CHAT
    write_chat(live[1], tmp_path / "picky", picky)
    chat = open_chat(tmp_path / "picky", True)
    assert chat.render([{"role": "system", "content": "be"}, {"role": "user", "content": "ba"}]) == "<s> Q ba . A"


def test_prompts_are_turns_of_a_chat(tiny: Tiny, tmp_path: Path, live: tuple[Any, Any]) -> None:
    write_chat(live[1], tmp_path / "chat")
    turns = load(tiny, tmp_path / "chat", fewshot_as_multiturn=True)
    request = harness(turns, "tiny_shots").instances[0][0]
    words = request.args[0].split()
    assert words[:2] == ["<s>", "Q"] and words[-2:] == [".", "A"] and words.count(".") == 5
    example = examples(turns, each=1)[0]
    assert example.prompt.endswith(" A") and not example.continuation.startswith(" ")
