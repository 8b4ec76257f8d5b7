"""The documentation agrees with the code: nothing a user can write is missing, every example is accepted."""

import re
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer
import yaml
from pydantic import BaseModel

from api import methods_page
from api.cli import app
from merging.catalog import CATALOG, recommended
from merging.recipe import Recipe, parse_recipe
from search.searchspec import StrategyName
from search.space import make_space
from search.starts.pool import starts
from search.strategies.choose import make_strategy
from search.strategies.opening import Opening
from search.study import StudySpec, parse_study

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md")))
README, STUDY, RECIPE, METHODS = (
    path.read_text()
    for path in (ROOT / "README.md", *(ROOT / "docs" / f"{n}.md" for n in ("study", "recipe", "methods")))
)
COMMANDS = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
LAYERS = 16
Key = tuple[str, Any, Any]  # dotted name, annotation, default


def keys(model: type[BaseModel], prefix: str = "") -> Iterator[Key]:
    """Every key of a file format, in lists and sections too."""
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        yield key, field.annotation, None if field.is_required() else field.default
        for inner in (field.annotation, *get_args(field.annotation)):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                yield from keys(inner, f"{key}[]." if inner is not field.annotation else f"{key}.")


def row_of(page: str, *cells: str) -> str:
    """The table row that begins with these cells; empty if there is none."""
    start = "| " + " | ".join(f"`{cell}`" for cell in cells) + " "
    return next((line for line in page.splitlines() if line.startswith(start)), "")


def literals(annotation: Any) -> list[str]:
    """The words that a key accepts, looked for in unions too."""
    if get_origin(annotation) is Literal:
        return [str(value) for value in get_args(annotation)]
    return [word for inner in get_args(annotation) for word in literals(inner)]


def yaml_blocks() -> list[tuple[str, str]]:
    """Every YAML example with where it stands."""
    found = []
    for path in PAGES:
        text = path.read_text()
        for match in re.finditer(r"^```ya?ml\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            found.append((f"{path.name}:{text[: match.start()].count(chr(10)) + 1}", match[1]))
    return found


BLOCKS = yaml_blocks()
WHOLE = [block for block in BLOCKS if block[1].startswith("schema:")]
PARTS = [block for block in BLOCKS if block[0].startswith("study.md") and block not in WHOLE]
STUDY_KEYS, RECIPE_KEYS = list(keys(StudySpec)), list(keys(Recipe))


@pytest.mark.parametrize(
    ("page", "key"),
    [(STUDY, key) for key in STUDY_KEYS] + [(RECIPE, key) for key in RECIPE_KEYS],
    ids=[f"study {key[0]}" for key in STUDY_KEYS] + [f"recipe {key[0]}" for key in RECIPE_KEYS],
)
def test_every_key_has_a_row_with_its_choices_and_default(page: str, key: Key) -> None:
    name, annotation, default = key
    row = row_of(page, name)
    assert row, f"{name} has no row"
    for word in literals(annotation):
        assert word in row, f"{name}: {word} is missing"
    if isinstance(default, int | float | str):
        assert f"`{default}`" in row, f"{name}: the default {default} is missing"


def test_the_keys_are_found_in_lists_and_sections() -> None:
    assert {"models.experts[].path", "evaluation.tasks[].metric", "search.trials"} <= {name for name, *_ in STUDY_KEYS}
    assert {"groups[].weights", "seed"} <= {name for name, *_ in RECIPE_KEYS}


def test_no_key_is_described_that_does_not_exist() -> None:
    for page, known in ((STUDY, STUDY_KEYS), (RECIPE, RECIPE_KEYS)):
        described = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
        assert set(described) == {name for name, *_ in known}


def test_the_recommended_methods_are_named_as_the_default() -> None:
    assert ", ".join(f"`{name}`" for name in recommended()) in row_of(STUDY, "space.methods")
    starred = re.findall(r"^\| `(\w+)` \* \|", METHODS, re.MULTILINE)
    assert tuple(starred) == recommended()


@pytest.mark.parametrize("name", get_args(StrategyName))
def test_every_strategy_has_a_section_with_an_example(name: str) -> None:
    _, _, section = STUDY.partition(f"\n### `{name}`\n")
    assert f"strategy: {name}" in section.partition("\n### ")[0]


def test_the_page_of_methods_is_the_catalog_s() -> None:
    assert methods_page.page() == METHODS, "write it anew: mergesearch methods --markdown > docs/methods.md"


@pytest.mark.parametrize("name", CATALOG)
def test_every_method_is_described_with_formula_parameters_needs_cost_and_source(name: str) -> None:
    row = CATALOG[name]
    assert row.summary in row_of(METHODS, name) and row.paper in row_of(METHODS, name)
    section = METHODS.partition(f"\n### `{name}`\n")[2].partition("\n### ")[0]
    for part in (row.formula, row.cost, row.paper, row.reading, *row.needs):
        assert part in section
    for p in (*([row.weight] if row.weight else []), *row.parameters):
        line = row_of(METHODS, name, p.name)
        assert p.doc.replace("|", "\\|") in line
        assert not isinstance(p.default, float) or f"| {p.default:g} | {p.neutral:g} |" in line


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_in_the_readme(name: str) -> None:
    assert re.search(rf"^\| `mergesearch {name}[ `]", README, re.MULTILINE)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_no_command_or_make_target_is_named_that_does_not_exist(path: Path) -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = re.findall(r"^```\w*\n(.*?)^```|`([^`\n]+)`", path.read_text(), re.MULTILINE | re.DOTALL)
    for snippet in ("".join(groups) for groups in code):
        assert set(re.findall(r"^mergesearch (\w+)", snippet, re.MULTILINE)) <= COMMANDS
        assert set(re.findall(r"^make (\w+)", snippet, re.MULTILINE)) <= targets


def test_the_readme_begins_with_the_two_commands() -> None:
    assert "```\nmake demo\nmake test\n```" in README


@pytest.mark.parametrize("block", WHOLE, ids=[place for place, _ in WHOLE])
def test_every_whole_example_is_accepted(block: tuple[str, str]) -> None:
    content = yaml.safe_load(block[1])
    if "study" in content["schema"]:
        assert_can_begin(parse_study(content))
    else:
        parse_recipe(content)


@pytest.mark.parametrize("block", PARTS, ids=[place for place, _ in PARTS])
def test_every_part_is_accepted_in_the_complete_example(block: tuple[str, str]) -> None:
    complete = next(text for place, text in WHOLE if place.startswith("study.md"))
    assert_can_begin(parse_study(yaml.safe_load(complete) | yaml.safe_load(block[1])))


def assert_can_begin(spec: StudySpec) -> None:
    """The strategy takes the space, and there are trials beyond the starts."""
    space = make_space(spec, LAYERS)
    begin = starts(space)
    make_strategy(spec.search.strategy, Opening(space, spec.search.seed, begin))
    assert spec.search.trials > len(begin)


def test_examples_of_both_formats_were_found() -> None:
    assert {yaml.safe_load(text)["schema"] for _, text in WHOLE} == {"mergesearch/study/v1", "mergesearch/recipe/v1"}
    assert len(PARTS) >= len(get_args(StrategyName))


def test_the_newest_change_is_the_version() -> None:
    released = re.findall(r"^## (\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == version("mergesearch")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_link_within_the_project_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", path.read_text()):
        file, _, anchor = target.partition("#")
        linked = path.parent / file if file else path
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_file_named_in_code_exists(path: Path) -> None:
    folders = "api|search|workers|db|evaluation|merging|zoo|tests|benchmarks|docs"
    for name in re.findall(rf"`((?:{folders})/[\w/.]*)`", path.read_text()):
        assert (ROOT / name).exists() or "NNNN" in name, name


def anchors(path: Path) -> set[str]:
    """The anchors that GitHub makes of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
