"""Measures the models that the doctor is asked about, judges them and shows it all. Builds and scores nothing."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from api.diagnosis.naming import Models
from api.diagnosis.page import page
from api.diagnosis.table import tables
from api.doctor import show
from api.findings import Finding
from api.output import print_json, screen
from api.places import require_writable
from merging.diagnosis.measure import Diagnosis, diagnose
from merging.diagnosis.summary import Summary, summarise
from merging.diagnosis.warnings import Remark, judge
from merging.errors import OutputError

_TABLE_RANGES = 4  # of layers, in the terminal
_PAGE_RANGES = 48  # what a page shows side by side


def run_diagnosis(models: Models, html: Path | None, *, as_json: bool) -> bool:
    """Measure the models and print what was found; with `html` also write a page.

    Returns:
        whether nothing is bad.

    Raises:
        OutputError: the page cannot be written.
    """
    if html is not None:
        _require_place(html)
    found = _measured(models)
    summary = summarise(found, _PAGE_RANGES)
    remarks = judge(found, summary)
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)
        html.write_text(page(models.base, found.facts, summary, remarks), encoding="utf-8")
    if as_json:
        print_json(content(found, summary, remarks))
    else:
        console = screen()
        console.print(*tables(summarise(found, _TABLE_RANGES)))
        show(tuple(Finding(", ".join(r.models), r.level, r.text) for r in remarks), console)
        compared = sum(float(tensor.sums.elements.sum()) for tensor in found.tensors)
        console.print(f"{compared:,.0f} numbers compared with the base's in {found.seconds:.1f} s", highlight=False)
    return all(remark.level != "bad" for remark in remarks)


def content(found: Diagnosis, summary: Summary, remarks: Sequence[Remark]) -> dict[str, Any]:
    """Everything found, as one JSON document."""
    return {
        "models": {name: asdict(facts) for name, facts in found.facts.items()},
        "remarks": [asdict(remark) for remark in remarks],
        "misfits": [asdict(misfit) for misfit in found.misfits],
        "units": [asdict(match) for match in found.matches],
        **asdict(summary),
    }


def _require_place(html: Path) -> None:
    """See that the page can be written before the models are read. Raises OutputError if not."""
    if html.is_dir():
        raise OutputError("--html", str(html), "is a folder", "name a file in it")
    require_writable("--html", html.absolute().parent, "choose another place for the page")


def _measured(models: Models) -> Diagnosis:
    """The diagnosis, with a bar on stderr while it is made if somebody looks."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reading the models", total=None)
        return diagnose(models.base, models.experts, lambda done, total: bar.update(task, completed=done, total=total))
