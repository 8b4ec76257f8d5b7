"""Tables for people: the verdict, the trials of a study, the studies, the methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from api.conclusion import p_value
from api.describe import counted
from api.methods_page import allowed, experts, needs, shown, weights
from db.records import Trial
from merging.catalog import CATALOG, Method, Parameter
from search.explain.record import Ablation, Explanation, Importance
from search.verdict import Finalist, FrontPoint, TaskPair, Verdict


def verdict_table(verdict: Verdict) -> Table:
    """Each finalist: search score, holdout score with interval, what it shrank by, and how the winner compares."""
    counts, reads = verdict.documents, verdict.holdout_reads
    unseen = "that no search decision read" if reads == 1 else f"kept aside, read {reads} times"
    caption = (
        f"search score on {counts['search']} documents; holdout score on {counts['holdout']} {unseen}; "
        f"p: {verdict.test} on the holdout, winner against this row"
    )
    if verdict.measured_as is not None:
        caption += f"; all of {verdict.measured_as}, {verdict.objective} being a comparison of trials"
    table = Table(title=f"Verdict: {_OBJECTIVES.get(verdict.objective, verdict.objective)}, {verdict.trials} trials")
    table.caption = caption
    table.add_column("candidate")
    for name in ("search", "holdout", "shrinkage", "95% interval", "winner is ahead by", "p"):
        # on a narrow screen intervals go on two lines, and no number is cut
        table.add_column(name, justify="right", no_wrap="interval" not in name and "ahead" not in name)
    for finalist in verdict.finalists:
        table.add_row(*_verdict_row(finalist, verdict), style="bold" if finalist.trial == verdict.winner else "")
    return table


_OBJECTIVES = {
    "mean": "mean of the tasks",
    "worst": "worst of the tasks",
    "normalized_mean": "mean of the tasks, 0 the base and 1 its best expert",
    "borda": "mean rank over the tasks",
    "borda_documents": "mean rank over the tasks, ranked by document",
    "kemeny": "order nearest to those of the tasks",
    "pareto": "knee of the front over the tasks",
}


def _verdict_row(finalist: Finalist, verdict: Verdict) -> list[str]:
    label = finalist.label
    if finalist.trial == verdict.winner:
        label = f"winner: trial {finalist.trial} ({label})"
    elif finalist.trial == verdict.best_expert:
        label = f"{label} (best expert)"
    against = finalist.winner_minus_this
    return [
        label,
        f"{finalist.search:.4f}",
        f"{finalist.holdout:.4f}",
        f"{finalist.search - finalist.holdout:+.4f}",
        f"{finalist.low:.4f} – {finalist.high:.4f}",
        "" if against is None else f"{against.difference:+.4f} ({against.low:+.4f} – {against.high:+.4f})",
        "" if against is None else p_value(against.p_value),
    ]


def tasks_table(verdict: Verdict) -> Table:
    """Each finalist's score in each task on the holdout, with its standard error where lm-eval gives one."""
    table = Table(title="Holdout score by task (± standard error)")
    table.add_column("candidate")
    tasks = verdict.finalists[0].tasks
    for name, pair in tasks.items():
        table.add_column(f"{name}\n{pair.metric}", justify="right")
    for finalist in verdict.finalists:
        label = "winner" if finalist.trial == verdict.winner else finalist.label
        table.add_row(label, *(_with_error(finalist.tasks[name]) for name in tasks))
    return table


def starts_table(verdict: Verdict) -> Table:
    """The best of what the search began with, by score on the search documents."""
    left = len(verdict.starts) - _STARTS_SHOWN
    table = Table(title="What the search began with", caption=f"and {left} more" if left > 0 else None)
    for name in ("start", "trial", "search", "documents"):
        table.add_column(name, justify="left" if name == "start" else "right")
    for start in verdict.starts[:_STARTS_SHOWN]:
        score = f"{'' if start.full else '≈ '}{start.search:.4f}"
        # names of files and studies are other people's text: never markup
        table.add_row(Text(start.label), str(start.trial), score, str(start.documents))
    return table


_STARTS_SHOWN = 10


def front_table(front: Sequence[FrontPoint]) -> Table:
    """The trials of a front, the recommended one first, with their values on the search documents."""
    left = len(front) - _FRONT_SHOWN
    more = f"and {left} more; " if left > 0 else ""
    table = Table(title=f"Front of {len(front)}", caption=f"{more}search documents; the recipes: with --json")
    for name in ("trial", "found by", *front[0].tasks):
        table.add_column(name, justify="left" if name == "found by" else "right")
    for index, point in enumerate(front[:_FRONT_SHOWN]):
        knee = " (knee, recommended)" if index == 0 else ""
        values = [f"{value:.4f}" for value in point.tasks.values()]
        table.add_row(str(point.trial), Text(f"{point.label}{knee}"), *values, style="bold" if knee else "")
    return table


def complementary_table(study: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """Recipes that complement each other, as `api.complementary.chosen` gives them."""
    caption = "covered: of the search documents, if each goes to whichever of the recipes so far answers it best"
    table = Table(title=f"Recipes of {study} that complement each other", caption=caption)
    for name in ("trial", "found by", "alone", "covered"):
        table.add_column(name, justify="left" if name == "found by" else "right")
    for row in rows:
        table.add_row(str(row["trial"]), Text(row["origin"]), f"{row['value']:.4f}", f"{row['coverage']:.4f}")
    return table


_FRONT_SHOWN = 20


def verdict_tables(verdict: Verdict) -> list[Table]:
    """All tables of a verdict; earlier versions said nothing of starts, and explained nothing."""
    tables = [verdict_table(verdict), tasks_table(verdict), *([starts_table(verdict)] if verdict.starts else [])]
    tables += [front_table(verdict.front)] if len(verdict.front) > 1 else []
    if (told := verdict.explanation) is not None:
        tables += [ablations_table(told)] if told.ablations else []
        tables += [importance_table(told.importance)] if told.importance is not None else []
    return tables


def ablations_table(told: Explanation) -> Table:
    """The winner with one thing changed: what that costs."""
    table = Table(title="What the winner owes to what")
    table.caption = (
        f"each change scored on the {told.documents} search documents on which the winner has {told.score:.4f}; these "
        "helped to pick the winner, so that a small cost may be luck"
    )
    for name in ("winner", "search", "costs", "95% interval", "p", "most of all in"):
        table.add_column(name, justify="left" if name in ("winner", "most of all in") else "right")
    for ablation in told.ablations:
        # names of experts and tasks are other people's text: never markup
        table.add_row(Text(ablation.said), *_ablation_cells(ablation))
    return table


def _ablation_cells(ablation: Ablation) -> list[str | Text]:
    if ablation.score is None or ablation.difference is None or ablation.p_value is None:
        return ["", "", Text(ablation.why or ""), "", ""]
    interval = f"{ablation.low:+.4f} – {ablation.high:+.4f}"
    task, lost = max(ablation.tasks.items(), key=lambda one: one[1], default=("", 0.0))
    most = Text(f"{task} ({lost:+.4f})" if lost > 0 else "")
    return [f"{ablation.score:.4f}", f"{ablation.difference:+.4f}", interval, p_value(ablation.p_value), most]


def importance_table(found: Importance) -> Table:
    """What the trials' scores depended on: shares of the variance that a model of them explains."""
    table = Table(title=f"What the scores of {found.trials} trials depended on")
    table.caption = f"a sum of one curve for each number, which explains {found.explained:.0%} of the variance"
    table.add_column("of")
    table.add_column("share", justify="right")
    groups = {"weights of ": found.experts, "at ": found.places, "": found.parameters}
    for index, (before, shares) in enumerate(groups.items()):
        if index and shares:
            table.add_section()
        for name, share in list(shares.items())[:_SHARES_SHOWN]:
            table.add_row(Text(f"{before}{name}"), f"{share:.0%}")
    return table


_SHARES_SHOWN = 8  # of each kind


def _with_error(pair: TaskPair) -> str:
    error = "" if pair.holdout_stderr is None else f" ± {pair.holdout_stderr:.4f}"
    return f"{pair.holdout:.4f}{error}"


def trials_table(trials: Sequence[Trial]) -> Table:
    """The trials, one a row."""
    table = Table()
    for name in ("trial", "origin", "state", "score", "seconds", "reason"):
        table.add_column(name, justify="right" if name in ("trial", "score", "seconds") else "left")
    for trial in trials:
        seconds = "" if trial.told_at is None else f"{trial.told_at - trial.created_at:.1f}"
        # reasons and names are other people's text: never markup
        table.add_row(str(trial.number), Text(trial.origin), trial.state, _score(trial), seconds, Text(trial.why or ""))
    return table


def _score(trial: Trial) -> str:
    """The value; of a trial that was stopped early what it is estimated at."""
    if trial.value is not None:
        return f"{trial.value:.4f}"
    return "" if trial.estimate is None else f"≈ {trial.estimate:.4f}"


@dataclass(frozen=True)
class StudyLine:
    """A study in the table: its trials by state, how many were asked for, the best value so far.

    Attributes:
        asked: None: as many as its budget allows.
        share: how much of the nearest of its limits is used up; None: earlier services do not say.
    """

    name: str
    state: str
    trials: Mapping[str, int]
    asked: int | None
    best: float | None
    share: float | None = None


def studies_table(lines: Sequence[StudyLine]) -> Table:
    """The studies, one a row."""
    table = Table()
    for name in ("study", "state", "trials", "best"):
        table.add_column(name)
    for line in lines:
        ended = sum(count for state, count in line.trials.items() if state != "open")
        far = counted(ended, line.asked, line.share)
        table.add_row(line.name, line.state, far, "" if line.best is None else f"{line.best:.4f}")
    return table


_COST = ("kind", "expert", "folder", "seconds", "bytes", "rounds")


def artefacts_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What was measured, what it cost, and where it lies."""
    table = Table()
    for name in ("measured", "of", "seconds", "memory", "read", "found", "folder"):
        table.add_column(name, justify="right" if name in ("seconds", "memory", "read") else "left", overflow="fold")
    for row in rows:
        memory = decimal(row["bytes"])
        times = f"{row['rounds']} times" if row["rounds"] > 1 else "once"
        of = row["expert"] or "all models"
        found = ", ".join(f"{name} {value:.4g}" for name, value in row.items() if name not in _COST)
        table.add_row(row["kind"], of, f"{row['seconds']:.1f}", memory, times, found, escape(row["folder"]))
    return table


def methods_table() -> Table:
    """The catalog."""
    table = Table(show_lines=True)
    for name in ("method", "what it does", "parameters (default; searched range)", "needs, cost", "source"):
        table.add_column(name, overflow="fold")
    for row in CATALOG.values():
        what = f"{row.summary}\n[italic]{escape(row.formula)}[/italic]"
        if row.reading:
            what += f"\nreading: {escape(row.reading)}"
        names = "\n= ".join((row.name, *row.aliases))
        numbers = "\n".join(_parameters(row)) or "none"
        table.add_row(names, what, numbers, f"{experts(row)} experts; {needs(row)}\n{row.cost}", row.paper)
    return table


def _parameters(row: Method) -> list[str]:
    lines = [f"{_parameter(row.weight)}, {weights(row)}"] if row.weight else []
    return lines + [_parameter(p) for p in row.parameters]


def _parameter(p: Parameter) -> str:
    if not p.searched:
        return f"{p.name} ({shown(p.default)}; fixed unless the study says otherwise)"
    span = f"{p.low:g}–{p.high:g}" if p.kind in ("float", "int") else allowed(p)
    return f"{p.name} ({shown(p.default)}; {span})"
