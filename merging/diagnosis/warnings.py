"""What the figures mean: the policy that turns a diagnosis into remarks, each with a remedy. Measures nothing.

`bad` is what no merge survives: a model that cannot be read, does not fit, or holds NaN. A `warning` can be merged
but rarely should be as it stands. `ok` is worth knowing.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from merging.diagnosis.measure import Diagnosis
from merging.diagnosis.opening import BASE, Facts, Misfit
from merging.diagnosis.summary import DARE_LIMIT, ExpertSummary, PairSummary, Summary

Level = Literal["ok", "warning", "bad"]
Code = Literal[
    "unreadable", "missing", "extra", "shape", "numbers", "vocabulary", "not_finite",
    "other_base", "common_ancestor", "permuted", "large_deltas", "opposed", "uneven_norms", "identical", "is_base",
    "dtype", "ties", "tokenizer", "rows",
    "fits", "frozen",
]  # fmt: skip

# Another base: fine-tunes stay within a few percent of their base; models trained apart are as far from each other
# as they are long (ratio √2, cosine 0).
OTHER_BASE_NORM = 0.8
OTHER_BASE_COSINE = 0.7
# Deltas of different tasks are near orthogonal (0 to 0.3); most of a delta in common was there before the tasks.
COMMON_COSINE = 0.9
OPPOSED_COSINE = -0.2  # beyond the noise of unrelated tasks: one expert undoes what another learned
DARE_SHARE = 0.5  # of the elements moved, above `DARE_LIMIT`
PERMUTED_SHARE = 0.1  # of an MLP's hidden units that resemble another one
UNEVEN_NORMS = 10.0  # longest delta by shortest: the rest is noise beside the longest
SPARSE_SHARE = 0.5  # of the elements unchanged, from which on it is worth a word

_CHOOSE = "say whose vocabulary the merge has (tokenizer: base, union or an expert): rows meet by their token"
_MISFIT_REMEDIES = {
    "missing": "use fine-tunes of this base, saved as full checkpoints",
    "extra": "use fine-tunes of this base, saved as full checkpoints",
    "shape": "use fine-tunes of this base",
    "rows": _CHOOSE,
    "numbers": "save both in floating point",
}


@dataclass(frozen=True)
class Remark:
    """One thing found.

    Attributes:
        code: which kind of finding, for programs.
        models: whom it concerns.
        problem: what was found, a clause that follows the models' names.
        remedy: what to do about it, an imperative sentence; empty for what needs nothing done.
    """

    level: Level
    code: Code
    models: tuple[str, ...]
    problem: str
    remedy: str = ""

    @property
    def text(self) -> str:
        """The problem and its remedy in one line."""
        return f"{self.problem}; {self.remedy}" if self.remedy else self.problem


def judge(found: Diagnosis, summary: Summary) -> tuple[Remark, ...]:
    """Every remark, the worst first; otherwise in the order of the checks and of the experts."""
    remarks = [*_misfits(found), *_folders(found)]
    if summary.base_broken:
        problem = f"holds {summary.base_broken} NaN or infinite numbers"
        remarks.append(Remark("bad", "not_finite", (BASE,), problem, "use a checkpoint that trained to the end"))
    for expert in summary.experts:
        remarks += [remark for check in _EXPERT_CHECKS if (remark := check(expert, found))]
    remarks += [remark for pair in summary.pairs if (remark := _pair(pair, found, summary))]
    remarks += _norms(summary)
    order: tuple[Level, ...] = ("bad", "warning", "ok")
    return tuple(sorted(remarks, key=lambda remark: order.index(remark.level)))


def _misfits(found: Diagnosis) -> Iterator[Remark]:
    for model, group in groupby(found.misfits, key=lambda misfit: misfit.model):
        for misfit in group:
            yield _misfit(model, misfit, found)
    fitting = [name for name in found.experts if all(misfit.model != name for misfit in found.misfits)]
    if BASE in found.facts and fitting:
        base = found.facts[BASE]
        size = f"{base.parameters:,} parameters in {found.layer_count} layers"
        yield Remark("ok", "fits", tuple(fitting), f"have the base's tensors and shapes: {size}")


def _misfit(model: str, misfit: Misfit, found: Diagnosis) -> Remark:
    if misfit.kind in ("unreadable", "vocabulary"):
        return Remark("bad", misfit.kind, (model,), misfit.problem)
    others = len(misfit.tensors) - 1
    problem = misfit.problem + (f" (and {others} more such tensor{'s' * (others > 1)})" if others else "")
    remedy = _MISFIT_REMEDIES[misfit.kind]
    here, there = found.facts[model].ties, found.facts[BASE].ties
    if misfit.kind in ("missing", "extra") and here != there:
        remedy = f"save both with the same tie_word_embeddings ({here} here, {there} in the base)"
    return Remark("warning" if misfit.kind == "rows" else "bad", misfit.kind, (model,), problem, remedy)


def _folders(found: Diagnosis) -> Iterator[Remark]:
    """What the configs, tokenizers and dtypes say."""
    base = found.facts.get(BASE)
    if base is None:
        return
    for name in found.experts:
        own = found.facts[name]
        if own.ties != base.ties:
            problem = f"has tie_word_embeddings {own.ties} where the base has {base.ties}"
            remedy = "see which one is right: the merge takes the base's config"
            yield Remark("warning", "ties", (name,), problem, remedy)
        if own.tokens and base.tokens and own.tokens != base.tokens:
            problem = "has other tokens, or other ids for them, than the base"
            yield Remark("warning", "tokenizer", (name,), problem, _CHOOSE)
        if set(own.dtypes) != set(base.dtypes):
            problem = f"is stored as {_dtypes(own)} where the base is {_dtypes(base)}"
            remedy = "expect rounding in its delta; save both in one dtype, the wider if you have it"
            yield Remark("warning", "dtype", (name,), problem, remedy)


def _dtypes(facts: Facts) -> str:
    return " and ".join(facts.dtypes)


def _broken(expert: ExpertSummary, found: Diagnosis) -> Remark | None:
    if not expert.broken:
        return None
    problem = f"holds {expert.broken} NaN or infinite numbers, the first in {expert.broken_tensor}"
    return Remark("bad", "not_finite", (expert.name,), problem, "use a checkpoint that trained to the end")


def _permuted(expert: ExpertSummary, found: Diagnosis) -> Remark | None:
    own = [match for match in found.matches if match.expert == expert.name and match.elsewhere > PERMUTED_SHARE]
    if not own:
        return None
    worst = max(own, key=lambda match: match.elsewhere)
    problem = (
        f"has hidden units in another order than the base: {worst.elsewhere:.0%} of those looked at in {worst.tensor} "
        f"resemble another unit (cosine {worst.best:.2f}) better than their own ({worst.own:.2f})"
    )
    return Remark("warning", "permuted", (expert.name,), problem, "align its units with the base's before merging")


def _is_far(expert: ExpertSummary) -> bool:
    """Whether the expert is too far from the base to be its fine-tune; what else is large then says nothing."""
    far = expert.matrix_norm >= OTHER_BASE_NORM or expert.matrix_cosine <= OTHER_BASE_COSINE
    return far and expert.tensors > 0


def _other_base(expert: ExpertSummary, found: Diagnosis) -> Remark | None:
    if not _is_far(expert) or _permuted(expert, found):
        return None
    problem = (
        f"is far from the base: its delta is {expert.matrix_norm:.2f} times as long as the base's weights, their "
        f"cosine is {expert.matrix_cosine:.2f}"
    )
    return Remark("warning", "other_base", (expert.name,), problem, "make sure that it was trained from this base")


def _large(expert: ExpertSummary, found: Diagnosis) -> Remark | None:
    if expert.above_dare <= DARE_SHARE or _is_far(expert):
        return None
    sizes = f"mean {expert.mean_magnitude:.2g}, median {expert.quantiles['median']:.2g}"
    problem = (
        f"moves {expert.above_dare:.0%} of what it moves by more than {DARE_LIMIT} ({sizes}, 99% below "
        f"{expert.quantiles['99%']:.2g}): dropping elements at random may cost much of what it learned"
    )
    return Remark(
        "warning", "large_deltas", (expert.name,), problem, "keep half or more with dare and della, or use ties"
    )


def _unchanged(expert: ExpertSummary, found: Diagnosis) -> Remark | None:
    frozen = len(expert.frozen)
    if expert.tensors and frozen == expert.tensors:
        problem = "is the base: not one number differs"
        return Remark(
            "warning", "is_base", (expert.name,), problem, "name the fine-tuned model's folder, or leave it out"
        )
    if frozen or expert.unchanged > SPARSE_SHARE:
        share = f"{frozen} of {expert.tensors} tensors and {expert.unchanged:.1%} of all numbers"
        problem = f"leaves {share} exactly as in the base"
        return Remark("ok", "frozen", (expert.name,), problem)
    return None


_EXPERT_CHECKS: tuple[Callable[[ExpertSummary, Diagnosis], Remark | None], ...] = (
    _broken,
    _permuted,
    _other_base,
    _large,
    _unchanged,
)


def _pair(pair: PairSummary, found: Diagnosis, summary: Summary) -> Remark | None:
    models = (pair.first, pair.second)
    if models in found.twins:
        return Remark("warning", "identical", models, "hold the same numbers", "leave one of them out")
    if pair.cosine >= COMMON_COSINE:
        problem = f"share most of their delta (cosine {pair.cosine:.2f})"
        remedy = "name the model that both were trained from as the base; for two runs of one task take one or average"
        far = [e for e in summary.experts if e.name in models and _is_far(e)]
        if len(far) == 2:
            problem += " and are far from the base, which is not where they come from"
        return Remark("warning", "common_ancestor", models, problem, remedy)
    if pair.cosine <= OPPOSED_COSINE:
        problem = f"pull against each other (cosine {pair.cosine:.2f}, {pair.weighted_conflict:.0%} sign conflict)"
        return Remark("warning", "opposed", models, problem, "prefer methods that elect a sign, such as ties")
    return None


def _norms(summary: Summary) -> Iterator[Remark]:
    moved = [expert for expert in summary.experts if expert.norm > 0 and not _is_far(expert)]
    if len(moved) < 2:
        return
    longest, shortest = max(moved, key=lambda e: e.norm), min(moved, key=lambda e: e.norm)
    if longest.norm >= UNEVEN_NORMS * shortest.norm:
        problem = f"have deltas of very different length ({longest.norm:.3g} and {shortest.norm:.3g})"
        remedy = "let weights differ by that much, or the shorter one is lost"
        yield Remark("warning", "uneven_norms", (longest.name, shortest.name), problem, remedy)
