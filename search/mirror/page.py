"""What a study's page in the dashboard shows besides its trials: a note, and the best trial's weights as a figure.

Both are written in the dashboard's own form, pieces of text among the study's system attributes, so that the
controller needs neither the dashboard (and scikit-learn) nor plotly.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from db.records import Study, Trial
from merging.recipe import GroupMerge, Recipe
from search.explain.record import Explanation
from search.mirror.layout import Layout
from search.searchspec import UNLIMITED
from search.verdict import Verdict

NOTE = "dashboard:note_"
FIGURE = "dashboard:plot_data:layers:"
_PIECE = 2045  # characters; the dashboard's own measure
_MOST_HOVER = 1024  # cells that may say more than their number
_MOST_PRINTED = 96  # cells that show their number


def note_attributes(text: str, version: int) -> dict[str, str]:
    """The attributes that make up a note in Markdown."""
    return {f"{NOTE}ver": json.dumps(version)} | _pieces(f"{NOTE}str:", text)


def figure_attributes(figure: Mapping[str, Any]) -> dict[str, str]:
    """The attributes that make up a plotly figure."""
    return _pieces(FIGURE, json.dumps(figure))


def _pieces(prefix: str, text: str) -> dict[str, str]:
    starts = range(0, len(text), _PIECE)
    return {f"{prefix}{i}": json.dumps(text[start : start + _PIECE]) for i, start in enumerate(starts)}


def note(study: Study, layout: Layout) -> str:
    """What the study is, how it stands, and the verdict once there is one."""
    spec = study.spec
    models, search = spec["models"], spec["search"]
    tasks = (_code(t["name"] + (f" ({t['metric']})" if t.get("metric") else "")) for t in spec["evaluation"]["tasks"])
    lines = [
        f"**{study.state}**{f': {_plain(study.why)}' if study.why else ''}",
        "",
        f"- base {_code(models['base'])}",
        f"- experts {', '.join(_code(e['name']) for e in models['experts'])}",
        f"- tasks {', '.join(tasks)}; objective {spec['objective']}",
        f"- strategy {search['strategy']}, {_most(search)}, seed {search['seed']}",
    ]
    if layout.summarised:
        lines.append(
            f"- {layout.dimensions} parameters, shown here as {len(layout.columns)} averages; the figure `layers` "
            "shows all weights of the best trial, a trial's attribute `api` leads to the rest"
        )
    if study.verdict is not None:
        lines += ["", *_verdict(Verdict.model_validate(study.verdict))]
    return "\n".join(lines)


def _most(search: Mapping[str, Any]) -> str:
    """The limits of the search, in words."""
    budget = {unit: most for unit, most in (search.get("budget") or {}).items() if most is not None}
    limits = [f"{search['trials']} trials"] if search["trials"] < UNLIMITED or not budget else []
    return ", ".join([*limits, *(f"{most:g} {unit}" for unit, most in budget.items())])


def _verdict(verdict: Verdict) -> Iterable[str]:
    """The finalists on the holdout, best first, and what must be known to believe them."""
    yield f"Verdict on {verdict.documents.get('holdout', 0)} documents that the search never saw: "
    yield ""
    yield "| candidate | trial | search | holdout | shrinkage | 95 % interval |"
    yield "|---|---|---|---|---|---|"
    for f in sorted(verdict.finalists, key=lambda f: -f.holdout):
        label = _code(f.label) + (" **winner**" if f.trial == verdict.winner else "")
        lost = f"{f.search - f.holdout:+.4f}"
        yield f"| {label} | {f.trial} | {f.search:.4f} | {f.holdout:.4f} | {lost} | {f.low:.4f} to {f.high:.4f} |"
    notes = [
        f"- picking the best of {verdict.candidates} was expected to flatter the winner by "
        f"{'at least ' if verdict.pruned else ''}{verdict.optimism:.4f}"
        if verdict.optimism is not None
        else "",
        f"- the holdout was read {verdict.holdout_reads} times" if verdict.holdout_reads > 1 else "",
        f"- scores and intervals are of {verdict.measured_as}" if verdict.measured_as is not None else "",
        *(f"- {_plain(k.constraint)}: {k.said}" for k in verdict.constraints),
    ]
    if any(notes):
        yield ""
        yield from filter(None, notes)
    if verdict.explanation is not None:
        yield from _explanation(verdict.explanation)


def _explanation(told: Explanation) -> Iterable[str]:
    """What the winner owes to what."""
    if told.ablations:
        yield from ("", f"The winner with parts changed, on {told.documents} search documents ({told.score:.4f}):", "")
        yield "| winner | search | costs | 95 % interval |"
        yield "|---|---|---|---|"
        for found in told.ablations:
            if found.score is None:
                yield f"| {_plain(found.said)} | | | {_plain(found.why or '')} |"
            else:
                interval = f"{found.low:+.4f} to {found.high:+.4f}"
                yield f"| {_plain(found.said)} | {found.score:.4f} | {found.difference:+.4f} | {interval} |"
    if told.importance is not None:
        parts = told.importance.experts | told.importance.parameters
        shares = ", ".join(f"{_code(name)} {share:.0%}" for name, share in parts.items())
        yield from ("", f"What the scores of {told.importance.trials} trials depended on: {shares}")


def _code(text: str) -> str:
    return f"`{_plain(text)}`"


def _plain(text: str) -> str:
    """Text that Markdown cannot mistake: one line, and no mark that ends a piece of code or a cell."""
    return " ".join(text.replace("`", "'").replace("|", "/").replace("<", "‹").split())


def weights_figure(trial: Trial, recipe: Recipe) -> dict[str, Any]:
    """The weights of a trial's recipe as a heat map, experts by groups of layers; the first layers at the left."""
    kinds = sorted({g.modules for g in recipe.groups})
    spans = sorted({g.layers for g in recipe.groups})
    groups = {(g.modules, g.layers): g for g in recipe.groups}
    lines = [(name, kind) for kind in reversed(kinds) for name in reversed(recipe.experts)]  # plotly begins below
    cells = [[groups.get((kind, span)) for span in spans] for _, kind in lines]
    heat: dict[str, Any] = {
        "type": "heatmap",
        "x": [_span(span) for span in spans],
        "y": [name if kind == "all" else f"{name} · {kind}" for name, kind in lines],
        "z": [
            [round(cell.weights.get(name, 0.0), 4) if cell and cell.weights else None for cell in row]
            for (name, _), row in zip(lines, cells, strict=True)
        ],
        "colorscale": "Viridis",
        "colorbar": {"title": {"text": "weight"}},
        "hovertemplate": "%{y}, layers %{x}<br>weight %{z}<extra></extra>",
    }
    size = len(lines) * len(spans)
    if size <= _MOST_HOVER:
        heat["text"] = [[_how(cell) for cell in row] for row in cells]
        heat["hovertemplate"] = "%{y}, layers %{x}<br>weight %{z}<br>%{text}<extra></extra>"
    if size <= _MOST_PRINTED:
        heat["texttemplate"] = "%{z:.2f}"
    value = "" if trial.value is None else f", {trial.value:.4f}"
    layout = {
        "paper_bgcolor": "rgba(0,0,0,0)",  # the page's own colours, light or dark
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": "#808890"},
        "title": {"text": f"Weights of the best trial (number {trial.number}{value})"},
        "xaxis": {"title": {"text": "layers"}, "type": "category"},
        "yaxis": {"type": "category", "automargin": True},
        "height": max(450, 220 + min(28 * len(lines), 900)),  # the place that the dashboard leaves for it, or more
    }
    return {"data": [heat], "layout": layout}


def _span(span: tuple[int, int]) -> str:
    return f"{span[0]}–{span[1] - 1}" if span[1] - span[0] > 1 else str(span[0])


def _how(group: GroupMerge | None) -> str:
    if group is None:
        return ""
    values = (f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in group.parameters.items())
    return " ".join((group.method, *values))
