"""What a winner's explanation says, in sentences: what it owes to what, as far as its documents show."""

from collections.abc import Iterator

from search.explain.record import Ablation, Explanation, Importance

_NAMED = 3  # of the parts that scores depended on most


def explained(explanation: Explanation) -> Iterator[str]:
    """The sentences of an explanation, for the verdict's conclusion and for the model card."""
    if explanation.ablations:
        yield from _experts(explanation)
    if explanation.unused:
        yield f"It makes no use of {_names(explanation.unused)}."
    if explanation.inseparable:
        yield f"Who could not be left out: {_names(explanation.inseparable)}."
    for ablation in explanation.ablations:
        if ablation.change != "without":
            yield _change(ablation)
    if explanation.importance is not None:
        yield _importance(explanation.importance)


def _experts(explanation: Explanation) -> Iterator[str]:
    """Who matters: the winner without each expert."""
    alone = [a for a in explanation.ablations if a.change == "without"]
    known = sorted((a for a in alone if a.shows), key=lambda a: -(a.difference or 0.0))
    lost = [f"{a.difference:.3f} without {a.expert}" for a in known if (a.difference or 0.0) > 0]
    gained = [f"{-(a.difference or 0.0):.3f} without {a.expert}" for a in known if (a.difference or 0.0) <= 0]
    where = f"on {explanation.documents} search documents"
    if lost:
        yield f"The winner loses {', '.join(lost)} ({where})."
    if gained:
        yield f"It gains {', '.join(gained)} ({where})."
    unseen = [a.expert or "" for a in alone if a.why is None and not a.shows]
    if unseen:
        yield f"Leaving out {_names(unseen, 'or')} alone costs nothing that {explanation.documents} documents show."
    for ablation in alone:
        if ablation.why is not None:
            yield f"Without {ablation.expert} it could not be scored ({ablation.why})."


def _change(ablation: Ablation) -> str:
    flat = ablation.change == "flat"
    what = "The same numbers in all layers" if flat else "Rounding its numbers to two digits"
    lost = ablation.difference
    if lost is None:
        return f"{what} could not be scored ({ablation.why})."
    does = "cost" if flat else "costs"
    if not ablation.shows:
        return f"{what} {does} nothing{'' if lost <= 0 else ' that these documents show'}."
    return f"{what} {does} {lost:.3f}." if lost > 0 else f"{what} {'gain' if flat else 'gains'} {-lost:.3f}."


def _importance(importance: Importance) -> str:
    """What the scores of the trials depended on."""
    parts = {f"the weights of {name}": share for name, share in importance.experts.items()}
    parts |= {name: share for name, share in importance.parameters.items() if not name.endswith(".weight")}
    first = sorted(parts.items(), key=lambda one: (-one[1], one[0]))[:_NAMED]
    told = ", ".join(f"{name} ({share:.0%})" for name, share in first)
    return (
        f"Over {importance.trials} trials the score depended most on {told}, by a model that explains "
        f"{importance.explained:.0%} of its variance."
    )


def _names(names: tuple[str, ...] | list[str], joined: str = "and") -> str:
    return f" {joined} ".join(filter(None, (", ".join(names[:-1]), names[-1])))
