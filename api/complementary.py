"""`mergesearch complementary`: of a study's recipes, a few that together do what no single one does."""

from pathlib import Path
from typing import Annotated, Any

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("complementary")(complementary)


def complementary(
    name: Annotated[str, typer.Argument(help="The study.")],
    size: Annotated[int, typer.Option(min=1, help="The most recipes.")] = 3,
    home: Annotated[
        Path, typer.Option("--home", envvar="MERGESEARCH_HOME", help="Folder of `mergesearch run`.")
    ] = Path("mergesearch-home"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the recipes of a study that do best together, if each document goes to the one that answers it."""
    from api.output import print_json, screen
    from api.report import complementary_table

    rows = chosen(name, size, home)
    if as_json:
        print_json(rows)
    else:
        screen().print(complementary_table(name, rows))


def chosen(name: str, size: int, home: Path) -> list[dict[str, Any]]:
    """The set, in the order chosen: trial, origin, value, and the share of the search documents covered so far.

    Raises:
        NotFound: there is no such study.
        Conflict: it has no trial that was scored in full and keeps its constraints.
    """
    from api.show import open_existing
    from merging.errors import Conflict
    from search.evolution.coverage import complementary as choose
    from search.judge import violation
    from search.standings import scores_of
    from search.study import StudySpec

    store = open_existing(home)
    study = store.studies.get(name)
    tried = [t for t in store.trials.all(study.id) if t.value is not None and not violation(t)]
    trials = list({t.evaluation_id: t for t in reversed(tried)}.values())[::-1]  # of each recipe the first
    if not trials:
        raise Conflict(f"study {name!r} has no trial that was scored in full and keeps its constraints; search further")
    weights = {t.name: t.weight for t in StudySpec.model_validate(study.spec).evaluation.tasks}
    found = choose([scores_of(store, t) for t in trials], weights, size)
    picked = [trials[place] for place in found.places]
    return [
        {"trial": t.number, "origin": t.origin, "value": t.value, "coverage": share}
        for t, share in zip(picked, found.coverage, strict=True)
    ]
