"""The winner's curse: by how much the score of the best of many flatters it, found by asking the documents again.

Whoever is best on some documents is so partly because of these documents. How much that is worth shows when winners
are picked on resampled documents: there too they score better than they do on all.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from evaluation.result import TaskScore
from evaluation.statistics import Floats, Measure, require_same_documents, resamples

_SLOW_DRAWS, _SLOW_CANDIDATES = 100, 30  # where an aggregation must be called once a draw and candidate


@dataclass(frozen=True)
class Selection:
    """What picking the best of many did to its score.

    Attributes:
        score: of the winner, on the documents that it was picked on.
        optimism: by how much a winner so picked is expected to lose on other documents of the kind.
        candidates: how many it was picked of.
    """

    score: float
    optimism: float
    candidates: int

    @property
    def corrected(self) -> float:
        """The winner's score as it is to be expected on other documents."""
        return self.score - self.optimism


def selection(
    measure: Measure, candidates: Sequence[Sequence[TaskScore]], draws: int = 500, seed: int = 0
) -> Selection:
    """The optimism of having picked the best of these candidates on these documents.

    The mean, over bootstrap resamples of the documents (within each task, the same for all candidates), of the luck
    that the resample's winner has there: by how much it scores more than it should, beyond what all candidates gain.
    The candidates' true scores are not known, and those found are spread by chance too, so that resampling them as
    they are would add luck to luck and find too little: they are drawn together first, around their mean, until they
    and the luck of one draw together are spread as what was found.

    Args:
        candidates: scores on the same documents, in any order; those stopped early cannot be among them.
        draws: resamples; at most 100, of the best 30 candidates, where a task's aggregation has no closed form. The
            others then have the luck that these have in other draws.

    Raises:
        InvalidInput: the candidates were not scored on the same documents.
    """
    for other in candidates[1:]:
        require_same_documents(candidates[0], other)
    found, luck = _resampled(measure, candidates, draws, seed)
    luck = luck - luck.mean(axis=1, keepdims=True)  # what all candidates share moves none past another
    winner = int(np.argmax(found))
    if len(found) == 1:
        return Selection(float(found[0]), 0.0, 1)
    luck = _lent(luck, len(found))
    centers = _drawn_together(found, luck)
    picked = np.argmax(centers + luck, axis=1)
    optimism = float(np.mean(luck[np.arange(len(luck)), picked]))
    return Selection(float(found[winner]), max(0.0, optimism), len(candidates))


def _drawn_together(found: Floats, luck: Floats) -> Floats:
    """The candidates' scores, spread as their true ones must be for luck to give the spread found: [candidates]."""
    spread = float(np.var(found, ddof=1))
    chance = float(np.mean(np.var(luck, axis=1, ddof=1)))
    kept = np.sqrt(max(0.0, spread - chance) / spread) if spread > 0 else 0.0
    centers: Floats = found.mean() + kept * (found - found.mean())
    return centers


def _lent(luck: Floats, candidates: int) -> Floats:
    """Luck for all candidates, of those whose luck is known: [draws, known] -> [draws, candidates].

    Leaving the others out would find the best of a few where the best of many was picked.
    """
    known = luck.shape[1]
    rounds = [np.roll(luck, turn, axis=0) for turn in range(-(-candidates // known))]
    return np.concatenate(rounds, axis=1)[:, :candidates]


def _resampled(
    measure: Measure, candidates: Sequence[Sequence[TaskScore]], draws: int, seed: int
) -> tuple[Floats, Floats]:
    """The objective of each candidate: as found [candidates], and what each resample adds [draws, candidates].

    Where an aggregation is slow, the best come first, and what is added is that of the first few.
    """
    tasks = measure.counting(candidates[0])
    samplers = [[measure.resampler(s) for t in tasks for s in scores if s.task == t.task] for scores in candidates]
    found = np.array([measure.observed(tasks, own) for own in samplers])
    fast = all(s.fast for own in samplers for s in own)
    if not fast:
        draws = min(draws, _SLOW_DRAWS)
        order = np.argsort(-found, kind="stable")
        samplers, found = [samplers[i] for i in order[:_SLOW_CANDIDATES]], found[order]
    values = []
    for drawn in resamples(tasks, draws, seed):
        counts = [c.astype(np.float64) for c in drawn] if fast else drawn  # once, not again for every candidate
        each = [
            measure.combined(tasks, [sampler.resampled(c) for sampler, c in zip(own, counts, strict=True)])
            for own in samplers
        ]
        values.append(np.stack(each, axis=1))
    return found, np.concatenate(values) - found[: len(samplers)]
