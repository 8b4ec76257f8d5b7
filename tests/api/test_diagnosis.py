"""`mergesearch doctor --models`: the command, its tables, its JSON and its page."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from api.cli import app
from api.diagnosis.naming import named_models, study_models
from merging.errors import InvalidInput, OutputError
from tests.merging.diagnosis.planted import base_tensors, shuffled, tuned
from tests.merging.factories import write_tensors

RUNNER = CliRunner()
VOID = {"meta"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two sound experts, one with its units in another order, and one that does not fit."""
    root, base = tmp_path_factory.mktemp("models"), base_tensors()
    write_tensors(root / "base", base)
    for name, tensors in {"add": tuned(base, 1), "<b>": tuned(base, 2), "mixed": shuffled(tuned(base, 3))}.items():
        write_tensors(root / name, tensors)
    short = tuned(base, 4)
    del short["model.norm.weight"]
    write_tensors(root / "short", short)
    return root


class Balanced(HTMLParser):
    """Sees to it that every element is closed, and keeps what elements refer to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen += [tag, *(f"{name}={value}" for name, value in attrs)]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_real_command_prints_tables_and_ends_well(folder: Path) -> None:
    command = [str(Path(sys.executable).parent / "mergesearch"), "doctor", "--models", "base", "add", "mixed"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    for words in ("Experts against the base", "add · mixed", "attention", "in another order"):
        assert words in done.stdout
    assert re.search(r"[\d,]+ numbers compared with the base's in [\d.]+ s", done.stdout)


def test_what_does_not_fit_ends_badly_and_the_rest_is_measured(folder: Path) -> None:
    done = RUNNER.invoke(app, ["doctor", "--models", "--json", *(str(folder / n) for n in ("base", "add", "short"))])
    content = json.loads(done.stdout)
    assert done.exit_code == 2
    (bad,) = (remark for remark in content["remarks"] if remark["level"] == "bad")
    assert bad["code"] == "missing" and bad["models"] == ["short"] and bad["remedy"]
    assert [expert["name"] for expert in content["experts"]] == ["add", "short"]
    assert abs(content["pairs"][0]["cosine"]) < 0.05 and len(content["groups"]) > 3


def test_the_page_stands_alone_and_shows_names_as_they_are(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "new" / "page.html"
    names = ("base", "add", "<b>", "mixed")
    asked = ["doctor", "--models", *(str(folder / n) for n in names), "--html", str(page)]
    assert RUNNER.invoke(app, asked).exit_code == 0
    assert RUNNER.invoke(app, asked).exit_code == 0  # a page may be written anew
    text = page.read_text()
    parser = Balanced()
    parser.feed(text)
    assert not parser.open and "svg" in parser.seen and "b" not in parser.seen and "&lt;b&gt;" in text
    assert not re.search(r"https?:|@import|url\(|<script|src=", text)
    assert "in another order" in text and "Where they agree" in text and "color-mix" in text


def test_a_study_names_its_models(folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        f"schema: mergesearch/study/v1\nname: s\nmodels:\n  base: {folder}/base\n"
        f"  experts: [{{path: {folder}/add, name: x}}]"
        "\nevaluation: {tasks: [{name: t}]}\n"
    )
    assert study_models(study).experts == {"x": folder / "add"}
    done = RUNNER.invoke(app, ["doctor", "--study", str(study), "--json"])
    assert done.exit_code == 0 and json.loads(done.stdout)["experts"][0]["name"] == "x"
    both = RUNNER.invoke(app, ["doctor", "--study", str(study), str(folder / "base")])
    assert isinstance(both.exception, InvalidInput) and "leave out" in str(both.exception)


def test_experts_are_called_by_the_ends_of_their_paths() -> None:
    def named(*paths: str) -> list[str]:
        return list(named_models([Path("b"), *map(Path, paths)]).experts)

    assert named("x/add", "y/sort/") == ["add", "sort"]
    assert named("add/final", "sort/final") == ["add/final", "sort/final"]
    with pytest.raises(InvalidInput, match="named twice"):
        named("x", "y", "./x")
    with pytest.raises(InvalidInput, match="needs a base and experts"):
        named()


@pytest.mark.parametrize("words", [["a.yaml", "b.yaml"], ["a.yaml", "--html", "page.html"], ["--models"]])
def test_what_cannot_be_asked_is_refused_with_a_remedy(words: list[str]) -> None:
    done = RUNNER.invoke(app, ["doctor", *words])
    assert isinstance(done.exception, InvalidInput) and done.exception.remedy


def test_a_page_that_cannot_be_written_is_refused_before_anything_is_read(folder: Path, tmp_path: Path) -> None:
    done = RUNNER.invoke(app, ["doctor", "--models", "gone", "gone too", "--html", str(tmp_path)])
    assert isinstance(done.exception, OutputError) and "is a folder" in str(done.exception)
