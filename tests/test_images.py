"""The Dockerfile by itself, and that the API's image has all it needs and no torch."""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
LINES = re.sub(r"\\\n", "", (ROOT / "Dockerfile").read_text()).splitlines()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
HEAVY = ("torch", "transformers", "lm_eval", "datasets", "accelerate", "safetensors", "scipy", "sklearn", "cmaes")
# what the API's image runs: serve, migrate, keys, health checks, the client
PACKAGES = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
FRONT = ("api.cli", "api.service.serve", "api.service.alive", "search.mirror", "api.client")
LOAD = """
import importlib, importlib.abc, json, pkgutil, sys
heavy, front, root = json.loads(sys.argv[1])
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in heavy:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
for name in front:
    module = importlib.import_module(name)
    for inner in pkgutil.iter_modules(getattr(module, "__path__", ())):
        importlib.import_module(f"{name}.{inner.name}")
files = [getattr(module, "__file__", None) or "" for module in tuple(sys.modules.values())]
print(json.dumps([file for file in files if file.startswith(root)]))
"""


def normal(requirement: str) -> str:
    """The distribution that a requirement names, as indexes write it."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[<>=~! ]", requirement)[0]).lower()


def stages() -> dict[str, list[str]]:
    """The Dockerfile's instructions by stage."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in LINES:
        if begins := re.fullmatch(r"FROM \S+ AS (\S+)", line):
            name = begins[1]
        if line and not line.startswith("#"):
            found.setdefault(name, []).append(line)
    return found


STAGES = stages()
SERVICES = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
BUILDS = [service["build"] for service in SERVICES.values() if "build" in service]
TARGETS = sorted({build["target"] for build in BUILDS})


def imported(file: str) -> Iterator[str]:
    """The top-level names that a module imports, wherever it does, but not for types alone."""
    waiting: list[ast.AST] = [ast.parse(Path(file).read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]
        waiting.extend(ast.iter_child_nodes(node))


def test_the_api_group_is_what_the_processes_without_torch_import() -> None:
    told = json.dumps([HEAVY, FRONT, f"{ROOT}/"])
    done = subprocess.run([sys.executable, "-c", LOAD, told], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = [file for file in json.loads(done.stdout) if Path(file).relative_to(ROOT).parts[0] in PACKAGES]
    names = {name for file in loaded for name in imported(file)} - set(HEAVY)
    homes = packages_distributions()
    used = {normal(home) for name in names for home in homes.get(name, ())} | {"psycopg"}  # which only URLs name
    ours = {normal(requirement) for requirement in PROJECT["project"]["dependencies"]}
    assert {normal(name) for name in PROJECT["dependency-groups"]["api"]} == used & ours


def test_the_api_group_says_nothing_of_versions() -> None:
    asked = {requirement.split(">")[0] for requirement in PROJECT["project"]["dependencies"]}
    assert set(PROJECT["dependency-groups"]["api"]) <= asked


def test_the_images_that_compose_builds_are_there() -> None:
    assert TARGETS == ["api", "worker", "worker-gpu"] and set(TARGETS) <= set(STAGES)
    for build in BUILDS:
        for argument in build.get("args", ()):
            assert any(line.startswith(f"ARG {argument}=") for line in STAGES[build["target"]])


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_our_command_as_nobody_special(target: str) -> None:
    users = [line for line in STAGES[target] if line.startswith("USER ")]
    assert users == ["USER 1000:1000"]
    after = STAGES[target][STAGES[target].index(users[0]) :]
    assert not any(line.startswith(("RUN", "COPY")) for line in after)
    assert 'ENTRYPOINT ["mergesearch"]' in after
    assert any("useradd --uid 1000" in line and "/exports" in line for line in STAGES["base"])


def test_only_the_workers_get_torch() -> None:
    assert [name for name, lines in STAGES.items() if any("torch" in line for line in lines)] == [
        "worker",
        "worker-gpu",
    ]
    assert any("--group api" in line and "--constraint constraints.txt" in line for line in STAGES["api"])


def test_no_secret_gets_into_an_image() -> None:
    assert not any(line.startswith("ADD ") for line in LINES)
    assert not any(re.match(r"(ARG|ENV) .*(PASSWORD|SECRET|TOKEN|KEY)", line) for line in LINES)
    assert [name for name, lines in STAGES.items() if "COPY . ." in lines] == ["wheel"]


def test_the_build_sees_what_the_wheel_is_made_of_and_nothing_else() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    seen = {rule[1:] for rule in rules if rule.startswith("!")}
    packages = set(PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"])
    needed = {"pyproject.toml", "constraints.txt", PROJECT["project"]["readme"], *PROJECT["project"]["license-files"]}
    assert rules[0] == "*" and seen == packages | needed
