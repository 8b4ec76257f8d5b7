"""`mergesearch doctor`: whether this machine, this home and this study file are fit to run; what to do if not."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from api.findings import Finding, State
from api.kept import kept_line, plan_lines
from api.output import print_json, screen
from api.places import require_writable
from api.service.checkup import check_up, is_configured
from db.schema import current, head
from db.session import make_engine, sqlite_url
from db.store import FILE
from merging.errors import InvalidInput, MergesearchError

LOW_DISK_BYTES = 5 * 10**9


def examine(study: Path | None, home: Path) -> tuple[Finding, ...]:
    """Look at everything; nothing is created."""
    checks: list[tuple[str, Callable[[], Iterator[Finding]]]] = [
        ("software", _software),
        ("devices", _devices),
        ("home", lambda: _home(home.absolute())),
        ("database", lambda: _database(home.absolute())),
    ]
    if is_configured():
        checks.append(("service", check_up))
    if study is not None:
        checks.append(("study", lambda: _study(study)))
    found: list[Finding] = []
    for what, check in checks:
        try:
            found.extend(check())
        except MergesearchError as error:
            found.append(Finding(what, "bad", str(error)))
    return tuple(found)


def run_checks(studies: Sequence[Path], home: Path, *, as_json: bool) -> bool:
    """Look at everything and print it.

    Args:
        studies: at most one study file.

    Returns:
        whether nothing is bad.
    """
    if len(studies) > 1:
        raise InvalidInput("doctor", str(studies[1]), "is one too many", "name one study file, or add --models")
    findings = examine(studies[0] if studies else None, home)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        show(findings, screen())
    return all(finding.state != "bad" for finding in findings)


def run_models(paths: Sequence[Path], study: Path | None, html: Path | None, *, as_json: bool) -> bool:
    """Measure the models named, or those of a study, and print what was found.

    Returns:
        whether nothing is bad.
    """
    from api.diagnosis.asking import run_diagnosis
    from api.diagnosis.naming import named_models, study_models

    if study is not None and paths:
        raise InvalidInput("--study", str(study), "names the models already", "leave out the folders, or --study")
    chosen = named_models(paths) if study is None else study_models(study)
    return run_diagnosis(chosen, html, as_json=as_json)


def show(findings: tuple[Finding, ...], console: Console) -> None:
    """Print the findings as a table."""
    table = Table()
    for name in ("", "what", "found"):
        table.add_column(name)
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "bad": "[red]bad[/]"}
    for finding in findings:
        table.add_row(marks[finding.state], Text(finding.what), Text(finding.found))  # paths are no markup
    console.print(table)


def _software() -> Iterator[Finding]:
    names = ("mergesearch", "torch", "transformers", "lm_eval", "optuna", "sqlalchemy")
    versions = ", ".join(f"{name} {_version(name)}" for name in names)
    yield Finding("software", "ok", f"Python {sys.version.split()[0]}, {versions}")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # the service's API and its controller's loop do without torch and what stands on it
        return "not installed"


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except ImportError:
        yield Finding("devices", "warning", "without torch nothing can be built or scored here; the API does without")
        return
    count = torch.cuda.device_count()
    for index in range(count):
        free, total = torch.cuda.mem_get_info(index)
        name = torch.cuda.get_device_name(index)
        yield Finding(f"cuda:{index}", "ok", f"{name}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free")
    if not count:
        yield Finding("devices", "warning", f"no GPU; workers run on the CPU ({os.cpu_count()} cores)")


def _home(home: Path) -> Iterator[Finding]:
    require_writable("home", home, "choose another folder with --home")
    nearest = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(nearest).free
    state: State = "ok" if free > LOW_DISK_BYTES else "warning"
    yield Finding("home", state, f"{home} can be written, {free / 10**9:.1f} GB free")


def _database(home: Path) -> Iterator[Finding]:
    if not (home / FILE).exists():
        yield Finding("database", "ok", "none yet; the first run makes it")
        return
    engine = make_engine(sqlite_url(home / FILE))
    try:
        found, known = current(engine), head()
    finally:
        engine.dispose()
    if found == known:
        yield Finding("database", "ok", f"{home / FILE} at version {found}")
    else:
        yield Finding("database", "warning", f"{home / FILE} at version {found}; the next run brings it to {known}")


def _study(path: Path) -> Iterator[Finding]:
    from api.prepared import Fingerprinted, prepare
    from evaluation.quiet import quiet_libraries
    from evaluation.vllm.installed import require_backend
    from search.study import load_study

    quiet_libraries()
    spec = load_study(path)
    require_backend(spec.evaluation)
    prepared = prepare(spec, Fingerprinted(None))
    sizes = ", ".join(
        f"{task.name} {len(prepared.suite.documents(task.name, 'search'))}"
        f"+{len(prepared.suite.documents(task.name, 'holdout'))}"
        for task in prepared.suite.tasks
    )
    space = prepared.space
    yield Finding("models", "ok", f"base and {len(space.experts)} experts fit, {prepared.setup['layer_count']} layers")
    if prepared.packed is not None:
        yield Finding("memory", "ok", kept_line(prepared.packed.to_json()))
    yield Finding("tasks", "ok", f"search + holdout documents: {sizes}")
    for line in plan_lines(plan) if (plan := prepared.setup.get("plan")) else ():
        yield Finding("space", "ok", line.strip())
    yield Finding("space", "ok", f"{len(space.groups)} groups, methods {', '.join(m.name for m in space.methods)}")
