"""What `auto` decides before a study begins: its methods, its granularity and its search, and why. Kept with the study.

Strategies name what they search; `auto` is for whoever names models and tasks alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field
from rich.filesize import decimal

from merging.catalog import CATALOG, Scalar
from search.searchspec import UNLIMITED
from search.study import StudySpec

AUTO = "auto"
BLIND = ("wudi", "ties", "task_arithmetic")  # look at weights alone
LEARNED = "learned_soup"  # looks at documents through gradients of a few coefficients
FITTED = "pleas_pp"  # keeps sums over the inputs of every matrix, anew for each candidate
SHORT = {"steps": 40, "batch": 16, "documents": 64, "rate": 0.1}
"""What `LEARNED` has where its defaults would take too much of the budget; two hundredths lower on the zoo."""
INSURED = 0.05  # of the documents that a study will score, what learning may look at, a pass with gradients thrice
MOST_MEASURED = 8 << 30
"""Bytes of measured sums, for each candidate, above which methods that keep them are left out: they lie on a disk."""
MOST_RANGES = 8  # ranges of layers: with more, the last stage of a search of usual length has nothing left to learn
LOOKS = 10  # steps of learning between two looks at all its documents
PER_NUMBER = 2.0  # trials that a number of the space should have to itself, for a range of layers to be worth it
RACED = 0.25  # of all documents, what a candidate takes where losers are stopped early (docs/benchmarks.md)
USUAL = 200  # trials of a study that is limited by the clock alone
POOLED = 3  # the starts, baselines aside, are no more than one in so many trials; `_begins` says "a third"
MODELLED = 200
"""Trials after which several objectives are left to NSGA-II; it is behind the process before (docs/benchmarks.md)."""
LEAST_TRIALS = 30  # fewer are best spent on the starts and on one weight an expert


class Plan(BaseModel):
    """What a study of `auto` searches.

    Attributes:
        methods: the choices, for `space.methods`.
        layers: number of layer ranges, for `space.layers`.
        fixed: for `space.fixed`, beside what the study fixes.
        why: the reasons, a sentence each.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: tuple[str, ...] = Field(min_length=1)
    layers: int = Field(ge=1)
    fixed: dict[str, Scalar] = {}
    why: tuple[str, ...]


@dataclass(frozen=True)
class Known:
    """What a plan is made of, beside the study file.

    Attributes:
        layer_count: of the models.
        measured_bytes: of the sums that `FITTED` keep for each candidate.
        documents: search documents of the tasks that count, each candidate's if it is scored in full.
        answers: whether every task says what is right, in words; else there is nothing to learn from.
    """

    layer_count: int
    measured_bytes: int
    documents: int
    answers: bool


def plan(spec: StudySpec, known: Known) -> Plan | None:
    """The plan of a study; None where its strategy is not `auto`: what it searches is what it says."""
    if spec.search.strategy != AUTO:
        return None
    why: list[str] = []
    fixed: dict[str, Scalar] = {}
    methods = spec.space.method_names if spec.space.methods else _methods(spec, known, fixed, why)
    layers = _layers(spec, known, why)
    return Plan(methods=methods, layers=layers, fixed=fixed, why=tuple(why))


def search_of(several: bool, per_group: bool) -> str:
    """How `auto` searches: `front`, `evolution` or `arms`.

    Args:
        several: objectives.
        per_group: whether each group of layers chooses among several methods: then no arm stands for one.
    """
    return "front" if several else "evolution" if per_group else "arms"


def planned(spec: StudySpec, decided: Plan | None) -> StudySpec:
    """The study with what was decided for it."""
    if decided is None:
        return spec
    said = {**decided.fixed, **spec.space.fixed}
    fixed = {key: value for key, value in said.items() if key not in spec.space.bounds}
    update = {"methods": decided.methods, "layers": decided.layers, "fixed": fixed}
    space = spec.space.model_copy(update=update)
    return spec.model_copy(update={"space": space})


def _methods(spec: StudySpec, known: Known, fixed: dict[str, Scalar], why: list[str]) -> tuple[str, ...]:
    found: list[str] = []
    if known.answers:
        size, limit = decimal(known.measured_bytes), decimal(MOST_MEASURED)
        fits = known.measured_bytes <= MOST_MEASURED
        if fits:
            found.append(FITTED)
            why.append(f"{FITTED} fits every matrix to what reaches it: {size} of sums for a candidate")
        else:
            why.append(f"not {FITTED}: its sums would take {size} for a candidate, more than {limit}")
        settings = _learning(spec, known, needed=not fits)
        if settings is None:
            why.append(f"not {LEARNED}: learning would look at more than {INSURED:.0%} of the documents to be scored")
        else:
            found.append(LEARNED)
            fixed.update({f"{LEARNED}.{name}": value for name, value in settings.items()})
            why.append(f"{LEARNED} moves all coefficients at once by gradients; the true metric polishes them")
    else:
        why.append("no method that learns from documents: a task does not say in words what is right")
    experts = len(spec.models.experts)
    fitting = [n for n in (*found, *BLIND) if CATALOG[n].experts[0] <= experts <= CATALOG[n].experts[1]]
    return tuple(fitting)


def _learning(spec: StudySpec, known: Known, needed: bool) -> dict[str, Scalar] | None:
    """The settings of `LEARNED`; None: it is not worth what it looks at."""
    budget = INSURED * expected_trials(spec, known.documents) * known.documents * _share(spec)
    tasks = sum(task.weight > 0 for task in spec.evaluation.tasks)
    defaults = {p.name: p.default for p in CATALOG[LEARNED].parameters}
    for settings in ({}, SHORT):
        values = {**defaults, **settings}
        steps, batch, each = (int(values[name]) for name in ("steps", "batch", "documents"))
        texts = max(1, min(known.documents, each * tasks))
        passes = 1 + -(-steps // LOOKS) + -(-steps * min(batch, texts) // texts)
        if 3 * passes * texts <= budget:
            return dict(settings)
    return dict(SHORT) if needed else None


def with_course(decided: Plan, spec: StudySpec, rungs: Sequence[int], *, proxied: bool) -> Plan:
    """The plan with how its study begins, how it goes on, and whom it stops: a sentence each.

    Args:
        rungs: how many search documents each has, ascending; the last has all.
        proxied: whether the first of them is the proxy's, and has none.
    """
    trials = expected_trials(spec, rungs[-1])
    said = (_begins(spec), _goes_on(spec, decided.methods, trials), _stops(spec, rungs[proxied:], proxied=proxied))
    return decided.model_copy(update={"why": (*decided.why, *said)})


def _begins(spec: StudySpec) -> str:
    most, own = spec.search.starts.most, ", your recipes" if spec.search.starts.recipes else ""
    fixed = f"it begins with recipes that need no search: the baselines, methods at their defaults{own}"
    if most is None:
        return f"{fixed}, and others while all of them are no more than a third of the trials"
    return f"{fixed}, and {most} others at most" if most else fixed


def _goes_on(spec: StudySpec, methods: Sequence[str], trials: int) -> str:
    several = spec.objective == "pareto" and sum(task.weight > 0 for task in spec.evaluation.tasks) > 1
    kind = search_of(several, spec.space.choose == "per_group" and len(methods) > 1)
    if kind == "front":
        later = f", then NSGA-II from trial {MODELLED} on" if trials > MODELLED else ""
        return f"several objectives: a Gaussian process, which makes most of few trials{later}"
    if kind == "evolution":
        return "each group of layers chooses its method, so evolution takes some groups of one parent, some of another"
    if len(methods) == 1:
        return "the search begins at the best known recipe of the method"
    return "each method has a search of its own, begun at its best known recipe; those that fall behind end"


def _stops(spec: StudySpec, rungs: Sequence[int], *, proxied: bool) -> str:
    who = "every trial in the better half by the proxy" if proxied else "every trial"
    if spec.racing == "off" or len(rungs) == 1:
        return f"{who} is scored on all {rungs[-1]} documents"
    if spec.racing == "one_shot":
        return f"{who} is scored on {rungs[0]} documents, and the best of them in the end on all {rungs[-1]}"
    return (
        f"{who} is scored on {rungs[0]} documents and goes on to all {rungs[-1]} unless it falls behind ({spec.racing})"
    )


def _share(spec: StudySpec) -> float:
    """Of all documents, what a candidate takes."""
    return 1.0 if spec.racing == "off" else RACED


def _layers(spec: StudySpec, known: Known, why: list[str]) -> int:
    asked = spec.space.layers
    if asked is not None or spec.space.gradient or spec.space.choose == "per_group":
        return known.layer_count if asked == "each" else asked or 1
    trials = expected_trials(spec, known.documents)
    if trials < LEAST_TRIALS:
        why.append(f"one weight an expert for all layers: {trials} trials teach no more")
        return 1
    numbers = len(spec.models.experts) + 1
    worth = int(trials / PER_NUMBER / numbers)
    layers = max(1, min(known.layer_count, MOST_RANGES, worth))
    each = "each layer" if layers == known.layer_count else f"{layers} ranges of layers"
    why.append(f"{each} with weights of its own in the end: {trials} trials are enough for that")
    return layers


def expected_trials(spec: StudySpec, documents: int) -> int:
    """How many candidates a study will try, as far as that can be known before it begins.

    Args:
        documents: that one candidate takes if it is scored in full; 0: not known.
    """
    budget, most = spec.search.budget, spec.search.trials
    if budget.documents is not None and documents:
        most = min(most, max(1, int(budget.documents / documents / _share(spec))))
    return min(most, USUAL) if most == UNLIMITED else most
