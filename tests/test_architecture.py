"""The shape of the code: what importing costs, whose the package names are, how long files and functions get."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("api", "search", "workers", "db", "evaluation", "merging", "zoo")
MOST_FILE_LINES, MOST_FUNCTION_LINES = 300, 40
CONTRACTS = (
    "merging.errors",
    "merging.recipe",
    "merging.catalog",
    "evaluation.result",
    "evaluation.spec",
    "search.study",
)
VENDORS = {"HFLM", "VLLM"}  # subclasses override documented methods of these, and say nothing twice
MODULES = [
    path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")) if "migrations" not in path.parts
]
EACH_MODULE = pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
Function = ast.FunctionDef | ast.AsyncFunctionDef


def loaded_by(*modules: str) -> set[str]:
    """The top-level modules that importing these loads, in a fresh process."""
    code = f"import sys, {', '.join(modules)}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


@pytest.mark.parametrize("contract", CONTRACTS)
def test_a_contract_loads_no_torch(contract: str) -> None:
    assert not loaded_by(contract) & {"torch", "transformers", "lm_eval"}


def test_the_command_line_starts_without_the_heavy_libraries() -> None:
    heavy = {"torch", "transformers", "lm_eval", "datasets", "optuna", "sqlalchemy", "alembic", "numpy", "scipy"}
    assert not loaded_by("api.cli") & heavy


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_brings_a_package_of_our_name(package: str) -> None:
    # an editable install lists no files, so its packages may not be there at all
    assert set(packages_distributions().get(package, [])) <= {"mergesearch"}


@EACH_MODULE
def test_a_module_begins_with_its_docstring(path: Path) -> None:
    text = path.read_text()
    assert ast.get_docstring(ast.parse(text)) and text.startswith('"""')


@EACH_MODULE
def test_a_file_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_FILE_LINES


@EACH_MODULE
def test_a_function_is_short_or_says_why_not(path: Path) -> None:
    lines = path.read_text().splitlines()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, Function) and node.end_lineno is not None:
            length = node.end_lineno - node.lineno + 1
            first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
            said = first > 1 and lines[first - 2].lstrip().startswith("#")
            assert length <= MOST_FUNCTION_LINES or said, f"{node.name} has {length} lines"


@EACH_MODULE
def test_what_is_public_has_a_docstring(path: Path) -> None:
    for name, node in public(ast.parse(path.read_text())):
        assert ast.get_docstring(node), f"{name}, line {node.lineno}"


def public(parent: ast.Module | ast.ClassDef) -> Iterator[tuple[str, Function | ast.ClassDef]]:
    """The public functions and classes of a module, and the methods of those classes."""
    overrides = isinstance(parent, ast.ClassDef) and any(ast.unparse(base) in VENDORS for base in parent.bases)
    for node in parent.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if not overrides or isinstance(node, ast.ClassDef):
            yield node.name, node
        if isinstance(node, ast.ClassDef):
            yield from public(node)
