"""Tables for people: the verdict, the trials of a study, the studies, the methods."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from api.methods_page import allowed, experts, needs, shown, weights
from db.records import Trial
from merging.catalog import CATALOG, Method, Parameter
from search.starts import UNIFORM
from search.verdict import Finalist, Verdict


def verdict_table(verdict: Verdict) -> Table:
    """Each finalist: search score, holdout score with interval, and how the winner compares."""
    counts = verdict.documents
    table = Table(
        title=f"Verdict: {verdict.objective} of the tasks, {verdict.trials} trials",
        caption=f"search score on {counts['search']} documents; holdout score on {counts['holdout']} that no search "
        "decision read; p: paired permutation test on the holdout, winner against this row",
    )
    table.add_column("candidate")
    for name in ("search", "holdout", "95% interval", "winner is ahead by", "p"):
        table.add_column(name, justify="right", no_wrap=True)
    for finalist in verdict.finalists:
        table.add_row(*_verdict_row(finalist, verdict), style="bold" if finalist.trial == verdict.winner else "")
    return table


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
        f"{finalist.low:.4f} – {finalist.high:.4f}",
        "" if against is None else f"{against.difference:+.4f} ({against.low:+.4f} – {against.high:+.4f})",
        "" if against is None else p_value(against.p_value),
    ]


SIGNIFICANT = 0.05


def conclusion(verdict: Verdict) -> str:
    """What the verdict says, in sentences: whether the search was worth it, and by how much its score flattered."""
    winner = verdict.of(verdict.winner)
    sentences = []
    rivals = [f for f in verdict.finalists if f.trial == verdict.best_expert or f.label == UNIFORM]
    for rival in rivals:
        name = "the uniform soup" if rival.label == UNIFORM else f"the best expert ({rival.label.partition(':')[2]})"
        against = rival.winner_minus_this
        if against is None:
            sentences.append(f"No recipe tried scored better on the search documents than {name}.")
        elif against.p_value < SIGNIFICANT and against.difference > 0:
            sentences.append(f"The winner beats {name} by {against.difference:.3f} ({p_text(against.p_value)}).")
        elif against.p_value < SIGNIFICANT:
            worse = f"is worse than {name} by {-against.difference:.3f} ({p_text(against.p_value)})"
            sentences.append(f"On the holdout the winner {worse}: use that one.")
        else:
            sentences.append(f"The holdout does not show that the winner beats {name} ({p_text(against.p_value)}).")
    shrinkage = winner.search - winner.holdout
    sentences.append(f"Its score is {abs(shrinkage):.3f} {'lower' if shrinkage > 0 else 'higher'} on the holdout.")
    sentences += [f"Not compared: {who} ({why})." for who, why in verdict.missing.items()]
    if verdict.exhausted:
        sentences.append(f"The search ended after {verdict.trials} trials: it had nothing left to try.")
    return " ".join(sentences)


def p_text(p: float) -> str:
    """`p < 0.001`, `p = 0.030`."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def tasks_table(verdict: Verdict) -> Table:
    """Each finalist's score in each task, on the holdout."""
    table = Table(title="Holdout score by task")
    table.add_column("candidate")
    tasks = verdict.finalists[0].tasks
    for name, pair in tasks.items():
        table.add_column(f"{name}\n{pair.metric}", justify="right")
    for finalist in verdict.finalists:
        label = "winner" if finalist.trial == verdict.winner else finalist.label
        table.add_row(label, *(f"{finalist.tasks[name].holdout:.4f}" for name in tasks))
    return table


def p_value(p: float) -> str:
    """A p-value as it is written; the permutation test gives none below 1/(draws+1)."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def trials_table(trials: Sequence[Trial]) -> Table:
    """The trials, one a row."""
    table = Table()
    for name in ("trial", "origin", "state", "score", "seconds", "reason"):
        table.add_column(name, justify="right" if name in ("trial", "score", "seconds") else "left")
    for trial in trials:
        value = "" if trial.value is None else f"{trial.value:.4f}"
        seconds = "" if trial.told_at is None else f"{trial.told_at - trial.created_at:.1f}"
        # reasons and names are other people's text: never markup
        table.add_row(str(trial.number), Text(trial.origin), trial.state, value, seconds, Text(trial.why or ""))
    return table


@dataclass(frozen=True)
class StudyLine:
    """A study in the table: its trials by state, how many were asked for, the best value so far."""

    name: str
    state: str
    trials: Mapping[str, int]
    asked: int
    best: float | None


def studies_table(lines: Sequence[StudyLine]) -> Table:
    """The studies, one a row."""
    table = Table()
    for name in ("study", "state", "trials", "best"):
        table.add_column(name)
    for line in lines:
        ended = sum(count for state, count in line.trials.items() if state != "open")
        table.add_row(line.name, line.state, f"{ended}/{line.asked}", "" if line.best is None else f"{line.best:.4f}")
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
