"""The page `docs/methods.md`, made from the catalog: `mergesearch methods --markdown`."""

from collections.abc import Iterator

from merging.catalog import CATALOG, FAMILIES, Method, Parameter

_HEAD = """\
# Merge methods

Made from the catalog by `mergesearch methods --markdown`; `mergesearch methods` prints the same as a table, and
`mergesearch methods --json` every field.

θ₀ is the base, X_t an expert, τ_t = X_t − θ₀ its *delta*, w_t its weight, T the number of experts. Arithmetic is done
in float32 (linear methods of float64 checkpoints, inner products and decompositions: in float64) and rounded once, to
the stored dtype. Random draws are keyed by the recipe's seed, the tensor's name and the expert's content: the same
recipe gives the same bits, in every order of work. Only the spectral methods go through products of matrices, whose
last bit, stored in float32, may change with the number of threads or the processor.
"""
_FAMILIES = {
    "averaging": ("Averages", "Linear combinations of whole models: one pass over memory, whatever the method."),
    "sparse": (
        "Sparse deltas",
        "Keep a part of every delta, by size or by chance. Ranks are taken within a tensor, a row or the model "
        "(`scope`); the model's cost one more pass, once a study.",
    ),
    "masking": ("Masks across experts", "Weigh each element by what all experts did to it."),
    "importing": ("Cautious import", "Take over a part of what one expert learned."),
    "spherical": ("Spherical", "Interpolate along the sphere instead of the line."),
    "spectral": (
        "Spectral",
        "Work on the singular values of linear layers' weights. Biases, norms, embeddings and heads get the mean "
        "of the deltas.",
    ),
    "measured": (
        "Measured on data",
        "Read what was measured of every expert on documents of the study's tasks, once: see "
        "[artefacts](artefacts.md). The holdout is never read.",
    ),
    "learned": (
        "Learned on data",
        "Coefficients or masks that were learned by gradient on documents of the study's tasks, once; weights are "
        "searched on top of them.",
    ),
    "structural": ("Structural", "Compose models of whole layers."),
}
_WEIGHTS = {
    "per_expert": "one for each expert",
    "one_hot": "one expert per group",
    "order": "the expert's position in a sequence",
    "none": "none",
}
_PARAMETERS = """\
*Searched* is the range a study explores; `space.bounds` replaces it, within *allowed*. "Fixed" means that the
parameter keeps its default unless the study gives bounds or a value (`space.fixed`), because weights already do its
work or because it chooses between readings of a method. At its *neutral* value a parameter does nothing. *Stage* says
whether a new value needs passes over documents (`measure`), new masks, cuts or decompositions (`prepare`)
or only a new pass over memory (`combine`). One marked † may have a value for each expert in a recipe.
"""


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *_overview(), *_sections()]).rstrip() + "\n"


def _overview() -> Iterator[str]:
    yield "| method | what it does | weights | experts | source |"
    yield "|---|---|---|---|---|"
    for row in CATALOG.values():
        star = " *" if row.recommended else ""
        yield f"| `{row.name}`{star} | {row.summary} | {weights(row)} | {experts(row)} | {_link(row.paper)} |"
    yield "\n\\* searched when a study names no methods.\n"
    yield "*Relative* weights matter only in proportion to each other; they must not be negative, and at least one must"
    yield "be above zero.\n"


def _sections() -> Iterator[str]:
    for family, rows in FAMILIES.items():
        title, text = _FAMILIES[family]
        yield f"## {title}\n\n{text}\n"
        for row in rows:
            yield from _section(row)
    yield f"## Parameters\n\n{_PARAMETERS}"
    yield "| method | parameter | meaning | stage | default | neutral | searched | allowed |"
    yield "|---|---|---|---|---|---|---|---|"
    for row in CATALOG.values():
        for parameter in (*([row.weight] if row.weight else []), *row.parameters):
            yield parameter_row(row, parameter)


def _section(row: Method) -> Iterator[str]:
    yield f"### `{row.name}`\n"
    yield f"{row.summary[0].upper()}{row.summary[1:]}.\n"
    yield f"    {row.formula}\n"
    if row.aliases:
        yield f"- *Also called*: {', '.join(f'`{alias}`' for alias in row.aliases)}"
    if row.reading:
        yield f"- *Reading*: {row.reading}"
    yield f"- *Needs*: {needs(row)}"
    yield f"- *Cost of a candidate*: {row.cost}"
    yield f"- *Source*: {_link(row.paper)}\n"


def weights(row: Method) -> str:
    """What its weights are, in words."""
    return _WEIGHTS[row.weighting] + (", relative" if row.normalised and row.weighting == "per_expert" else "")


def experts(row: Method) -> str:
    """How many experts it takes, in words."""
    fewest, most = row.experts
    return f"{fewest} or more" if most >= 64 else (f"{fewest} to {most}" if fewest != most else str(most))


def needs(row: Method) -> str:
    """What it reads, in words."""
    measured = [f"measured {kind}" if kind != "coefficients" else "learned coefficients" for kind in row.artefacts]
    return ", ".join([*(["the base"] if row.needs_base else []), *row.needs, *measured]) or "nothing but the experts"


def parameter_row(row: Method, p: Parameter) -> str:
    """One parameter's line of the table."""
    if row.weighting == "one_hot" and p.name == "weight":
        searched = "one expert per group"
    elif row.weighting == "order" and p.name == "weight":
        searched = "the order of the study's experts"
    elif not p.searched:
        searched = "fixed"
    else:
        searched = f"{p.low:g} to {p.high:g}{', log scale' if p.log else ''}" if _numeric(p) else allowed(p)
    mark = " †" if p.per_expert else ""
    cells = [str(cell).replace("|", "\\|") for cell in (p.doc, p.stage, shown(p.default), shown(p.neutral))]
    cells += [searched, allowed(p)]
    return f"| `{row.name}` | `{p.name}`{mark} | {' | '.join(cells)} |"


def allowed(p: Parameter) -> str:
    """The values that make sense at all."""
    if p.kind == "bool":
        return "true or false"
    if p.kind == "choice":
        return ", ".join(f"`{choice}`" for choice in p.choices)
    return f"{p.minimum:g} to {p.maximum:g}"


def shown(value: object) -> str:
    """A value as a study file has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, int | float) else f"`{value}`"


def _numeric(p: Parameter) -> bool:
    return p.kind in ("float", "int")


def _link(paper: str) -> str:
    name = paper.removeprefix("https://arxiv.org/abs/").removeprefix("https://doi.org/")
    kind = "arXiv:" if "arxiv.org" in paper else ("doi:" if "doi.org" in paper else "")
    return f"[{kind}{name if kind else paper.removeprefix('https://')}]({paper})"
