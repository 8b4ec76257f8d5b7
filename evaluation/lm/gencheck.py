"""Does a live model give the same logits through our lanes as by itself? Asked once, of a few made-up tokens."""

from typing import Any

import torch

from evaluation.lm.budget import out_of_memory
from evaluation.lm.genlanes import Lanes, alone

_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-3}  # of the logits' spread; others: rounding is much coarser
_COARSE = 0.1


def lanes_agree(model: Any) -> bool | None:
    """Shared beginning, padding on both sides, guesses taken back, rows dropped: all against plain forward passes.

    Returns:
        None if the weights tell nothing: logits that are not finite, or do not depend on what came before.
    """
    size = model.config.get_text_config(decoder=True).vocab_size
    stem, one, other = ([(7919 * i + start) % size for i in range(n)] for n, start in ((3, 11), (6, 5), (2, 29)))
    longer, plain = [*stem, *one], [*stem, *other]
    wanted = [longer[:-1], longer, *(plain + one[:n] for n in range(4)), longer + one[:1], plain + one[:2]]
    expected = torch.stack([alone(model, tokens) for tokens in [*wanted, plain + one[:3]]]).float()
    elsewhere = alone(model, [*other, longer[-1]]).float()
    if not expected.isfinite().all() or not elsewhere.isfinite().all():
        return None
    bound = _TOLERANCE.get(model.dtype, _COARSE) * expected.std(-1).mean()
    if (expected[1] - elsewhere).abs().max() <= 2 * bound:
        return None
    try:
        met = torch.stack(_met(model, stem, one, other)).float()
    except (RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
        if out_of_memory(error):
            raise
        return False
    return bool((met - expected).abs().max() <= bound)


def _met(model: Any, stem: list[int], one: list[int], other: list[int]) -> list[torch.Tensor]:
    """What the lanes say."""
    first = Lanes(model, 1)
    first.feed([stem], [1])
    first.keep([0], [0])
    lanes = Lanes(model, 2, first)
    met = list(lanes.feed([one, [*other, *one[:3]]], [2, 4]))
    lanes.keep([0, 1], [0, 2])
    met += list(lanes.feed([one[:1], one[1:2]], [1, 1]))
    lanes.keep([1], [0])
    return met + list(lanes.feed([one[2:3]], [1]))
