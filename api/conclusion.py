"""What a verdict says, in sentences: whether the search was worth it, and how far its figures can be believed."""

from collections.abc import Iterator

from rich.filesize import decimal

from api.explained import explained
from merging.compression import Compression
from search.starts.start import UNIFORM, is_baseline
from search.twins import twin_origin
from search.verdict import Against, Compressed, Finalist, PassedOver, Verdict

SIGNIFICANT = 0.05


def conclusion(verdict: Verdict) -> str:
    """What the verdict says: what the winner beats, what became of its score, and what else must be known."""
    parts = (_rivals, _gain, _score, _constraints, _cost, _compression, _explanation, _rest)
    return " ".join(sentence for part in parts for sentence in part(verdict))


def _rivals(verdict: Verdict) -> Iterator[str]:
    for rival in verdict.finalists:
        if rival.trial == verdict.best_expert or rival.label == UNIFORM:
            yield _rival(rival, verdict)


def _rival(rival: Finalist, verdict: Verdict) -> str:
    name = "the uniform soup" if rival.label == UNIFORM else f"the best expert ({rival.label.partition(':')[2]})"
    against = rival.winner_minus_this
    if against is None:
        return _unbeaten(name, verdict)
    if against.p_value >= SIGNIFICANT:
        return f"On the holdout the winner is not significantly better than {name}: {_measured(against)}."
    if against.difference > 0:
        return f"The winner beats {name} by {against.difference:.3f} ({p_text(against.p_value)})."
    worse = f"is worse than {name} by {-against.difference:.3f} ({p_text(against.p_value)})"
    if verdict.measured_as is not None:
        return f"On the holdout the winner {worse}."
    condition = " if it meets your constraints" if verdict.constraints else ""
    return f"On the holdout the winner {worse}: use that one{condition}."


def _measured(against: Against) -> str:
    interval = f"95% interval {against.low:+.3f} to {against.high:+.3f}"
    return f"{against.difference:+.3f} ({interval}, {p_text(against.p_value)})"


def _unbeaten(name: str, verdict: Verdict) -> str:
    """That the winner is a baseline, with what keeps others from having been looked at or from counting."""
    won = f"The winner is {name} itself."
    if verdict.passed_over is not None:
        return f"{won} {_luck(verdict.passed_over, name)}"
    if any(kept.search > 0 for kept in verdict.constraints):
        return f"{won} No recipe that could be compared came nearer to meeting the constraints than {name}."
    which = "scored in full" if verdict.pruned else "tried"
    limits = {"could be compared": verdict.missing, "meets the constraints": verdict.constraints}
    but = [text for text, there in limits.items() if there]
    that = f" that {' and '.join(but)}" if but else ""
    better = "scored better" if verdict.measured_as is None else f"ranked higher by {verdict.objective}"
    return f"{won} No recipe {which}{that} {better} on the search documents than {name}."


def _luck(passed: PassedOver, name: str) -> str:
    """Why a better score was not preferred."""
    scored = f"Trial {passed.trial} scored {passed.difference:.3f} more than {name} on the search documents"
    return f"{scored}, which may be luck (standard error {passed.stderr:.3f}): `search.margin` says how much is enough."


def _gain(verdict: Verdict) -> Iterator[str]:
    """What the search added to the best of what it began with."""
    best, winner = verdict.best_start, verdict.of(verdict.winner)
    if best is None or is_baseline(winner.label):  # that a baseline won was said
        return
    gain = winner.search - best.search
    if verdict.passed_over is not None:
        yield f"The winner is the search's best start ({best.label}). {_luck(verdict.passed_over, 'it')}"
    elif winner.trial == best.trial:
        yield f"The search found nothing better than its best start ({best.label})."
    elif winner.label == twin_origin(best.trial):
        yield f"The winner is the search's best start ({best.label}) with the experts as they are."
    elif verdict.measured_as is not None:
        yield f"The winner ranks above the search's best start ({best.label})."
    elif gain >= 0:
        yield f"On the search documents the search gained {gain:+.3f} over its best start ({best.label})."
    else:
        yield f"The search's best start ({best.label}) scored {-gain:.3f} more, and breaks the constraints by more."


def _score(verdict: Verdict) -> Iterator[str]:
    """What became of the winner's score, and whether the holdout is still what it was."""
    winner = verdict.of(verdict.winner)
    shrinkage = winner.search - winner.holdout
    said = f"Its score is {abs(shrinkage):.3f} {'lower' if shrinkage > 0 else 'higher'} on the holdout"
    if verdict.optimism is not None and verdict.candidates > 1:
        of = f"{verdict.candidates}{' scored in full' if verdict.pruned else ''}"
        least = "at least " if verdict.pruned else ""  # of those stopped the luckiest were left
        said += f"; picking the best of {of} was expected to flatter it by {least}{verdict.optimism:.3f}"
    yield f"{said}."
    if verdict.holdout_reads > 1:
        yield (
            f"The holdout was read {verdict.holdout_reads} times, each time after more trials: what the earlier "
            "readings showed may have led to this winner, so its holdout score is no longer unseen."
        )
    if verdict.measured_as is not None:
        yield f"The winner is best by {verdict.objective}; scores, intervals and p are of {verdict.measured_as}."
    others = [str(point.trial) for point in verdict.front if point.trial != verdict.winner]
    if 0 < len(others) < len(verdict.front):
        where = "the knee of" if verdict.front[0].trial == verdict.winner else "no knee, but on"
        more = f" and {len(others) - 5} more" if len(others) > 5 else ""
        yield f"It is {where} a front of {len(verdict.front)}; the others are trials {', '.join(others[:5])}{more}."


def _constraints(verdict: Verdict) -> Iterator[str]:
    broken = [kept for kept in verdict.constraints if kept.search > 0]
    if broken:
        missed = ", ".join(f"`{kept.constraint}` by {kept.search:.3f}" for kept in broken)
        yield f"Nothing that was compared meets all constraints: the winner misses {missed}."
    for kept in verdict.constraints:
        if kept.search <= 0 and kept.holdout is not None and kept.holdout > 0:
            yield f"On the holdout it misses `{kept.constraint}` by {kept.holdout:.3f}."
    if verdict.constraints and not broken:
        yield "It meets its constraints on the search documents."


def _cost(verdict: Verdict) -> Iterator[str]:
    """What stopping early saved, and whether the proxy that helped can be trusted."""
    if verdict.pruned and verdict.documents_full:
        share = (verdict.documents_scored or 0) / verdict.documents_full
        yield f"{verdict.pruned} trials were stopped early: {share:.0%} of the documents of full scoring were scored."
    if verdict.proxy is not None:
        correlation, trials = verdict.proxy.correlation, verdict.proxy.trials
        known = "is not known" if correlation is None else f"is {correlation:.2f}"
        yield f"The rank correlation of the proxy ({verdict.proxy.kind}) with the score {known}, over {trials} trials."


def _compression(verdict: Verdict) -> Iterator[str]:
    """That the experts were compressed, how far, and what that costs a recipe's score."""
    packed = verdict.compressed
    if packed is None:
        return
    sizes = f"{decimal(packed.bytes_)} instead of {decimal(packed.whole_bytes)}"
    loss = ", without loss" if Compression(codec=packed.codec).lossless else ""
    yield (
        f"The search kept its experts compressed ({packed.codec}{loss}, {packed.bits_per_parameter:.3g} bits a "
        f"parameter; with the base {sizes})."
    )
    if Compression(codec=packed.codec).lossless:
        return
    if packed.pair is None or packed.search_cost is None or packed.holdout_cost is None:
        yield "No recipe could be scored both so and with the experts as they are: what that costs is not known."
        return
    yield _paid(packed, packed.pair, packed.search_cost)
    if verdict.winner == packed.pair[1]:
        yield "The winner is the one with the experts as they are."
    if verdict.winner == packed.pair[0]:
        yield "The winner is the one with the compressed experts."


def _paid(packed: Compressed, pair: tuple[int, int], search: float) -> str:
    holdout = packed.holdout_cost
    assert holdout is not None, "both were scored there"
    return (
        f"Trial {pair[1]} is trial {pair[0]} with the experts as they are: {search:+.3f} on the search documents, "
        f"{holdout.difference:+.3f} on the holdout ({holdout.low:+.3f} to {holdout.high:+.3f}, "
        f"{p_text(holdout.p_value)})."
    )


def _explanation(verdict: Verdict) -> Iterator[str]:
    """What the winner owes to what."""
    if verdict.explanation is not None:
        yield from explained(verdict.explanation)


def _rest(verdict: Verdict) -> Iterator[str]:
    for who, why in verdict.missing.items():
        yield f"Not compared: {who} ({why})."
    if verdict.ended is not None:
        yield f"The search ended after {verdict.trials} trials: {verdict.ended.why}."
    elif verdict.exhausted:  # as an earlier version said it
        yield f"The search ended after {verdict.trials} trials: it had nothing left to try."


def p_text(p: float) -> str:
    """`p < 0.001`, `p = 0.030`."""
    return f"p {p_value(p)}" if p < 0.001 else f"p = {p_value(p)}"


def p_value(p: float) -> str:
    """A p-value as it is written; the permutation test gives none below 1/(draws+1)."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
