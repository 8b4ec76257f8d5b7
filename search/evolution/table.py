"""Skills side by side: one row a recipe, one column a document, in [0, 1], nothing missing.

Trials that were stopped early were scored on some of the documents. The rest of their row is an estimate: what those
who were scored on all have there on average, corrected by how the trial differs from them where it was scored. Of
documents that are right or wrong that is the chance to be right, which is what fitness and attraction, being sums
over documents, need.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from search.evolution.skill import Skill

Floats = NDArray[np.float64]
WIDE = 0.9  # of the documents' ranges, the quantile that counts as 1


@dataclass(frozen=True)
class Table:
    """Skills side by side.

    Attributes:
        scores: [recipes, documents], 0 worst, 1 best.
        weights: [documents], adding up to 1: each task has its share, whatever number of documents it has.
        worth: [documents], what solving a document may bring at most: 1 where documents are right or wrong, else the
            best score there (`c_j` of M2N2).
        tasks: the columns of each task.
    """

    scores: Floats
    weights: Floats
    worth: Floats
    tasks: Mapping[str, slice]

    def means(self) -> Floats:
        """The mean score of each recipe on each task: [recipes, tasks]."""
        return np.stack([self.scores[:, columns].mean(axis=1) for columns in self.tasks.values()], axis=1)


def tabulate(skills: Sequence[Skill], weights: Mapping[str, float]) -> Table:
    """The table of some skills, at least one, in their order.

    Scores within [0, 1] stay as they are. Others are counted from the worst recipe's on each document, in units of the
    range between worst and best that nine of ten documents of the task do not exceed.

    Args:
        weights: of the tasks; those not named count 1.
    """
    blocks, shares, worths, tasks, first = [], [], [], {}, 0
    for task in dict.fromkeys(name for skill in skills for name in skill.documents):
        block = _normalised(_aligned(skills, task))
        blocks.append(_filled(block))
        plain = bool(np.isin(block[~np.isnan(block)], (0.0, 1.0)).all())
        worths.append(np.ones(block.shape[1]) if plain else np.nanmax(block, axis=0))
        shares.append(np.full(block.shape[1], weights.get(task, 1.0) / block.shape[1]))
        tasks[task] = slice(first, first + block.shape[1])
        first += block.shape[1]
    share = np.concatenate(shares)
    return Table(np.concatenate(blocks, axis=1), share / share.sum(), np.concatenate(worths), tasks)


def _aligned(skills: Sequence[Skill], task: str) -> Floats:
    """[recipes, documents that anybody has]; NaN where a recipe was not scored."""
    present = [skill.documents[task] for skill in skills if task in skill.documents]
    union = max(present, key=len)
    if any(not np.array_equal(documents, union) for documents in present):
        union = np.unique(np.concatenate(present))
    block = np.full((len(skills), len(union)), np.nan)
    for row, skill in zip(block, skills, strict=True):
        if task in skill.documents:
            row[np.searchsorted(union, skill.documents[task])] = skill.values[task]
    return block


def _normalised(block: Floats) -> Floats:
    if np.nanmin(block) >= 0.0 and np.nanmax(block) <= 1.0:
        return block
    worst = np.nanmin(block, axis=0)
    wide = float(np.quantile(np.nanmax(block, axis=0) - worst, WIDE))
    widest = float(np.nanmax(block - worst))
    unit = wide or widest or 1.0
    scaled: Floats = np.clip((block - worst) / unit, 0.0, 1.0)
    return scaled


def _filled(block: Floats) -> Floats:
    """The same with estimates where documents were not scored."""
    known = ~np.isnan(block)
    if known.all():
        return block
    whole = known.all(axis=1)
    usual: Floats = block[whole].mean(axis=0) if whole.any() else np.nanmean(block, axis=0)
    filled = block.copy()
    for row, there in zip(filled, known, strict=True):
        ahead = float((row[there] - usual[there]).mean()) if there.any() else 0.0
        row[~there] = np.clip(usual[~there] + ahead, 0.0, 1.0)
    return filled
