"""What learning makes small: how unlikely the right answers are, or how unsure the model is of its own.

A loss takes the live model and a batch of texts and gives their sum, a float32 scalar with a graph where parameters
are followed. Every text counts the same, however long its answer is.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from evaluation.artefacts.texts import Text, log_likelihoods

Loss = Callable[[Any, Sequence[Text]], Tensor]


def cross_entropy(model: Any, texts: Sequence[Text]) -> Tensor:
    """Σ over texts of −log p(answer | context) / tokens of the answer, in nats."""
    found = log_likelihoods(model, texts)
    return -torch.stack([each / len(text.answer) for each, text in zip(found, texts, strict=True)]).sum()


def first_entropy(model: Any, texts: Sequence[Text]) -> Tensor:
    """Σ over texts of the entropy of p(first token of an answer | context), in nats. No answer is looked at.

    Of the first token alone: along the model's own greedy answers, entropies of later tokens say less about what is
    right, and cost a pass each.
    """
    ids = torch.zeros(len(texts), max(len(text.context) for text in texts), dtype=torch.long)
    for i, text in enumerate(texts):
        ids[i, : len(text.context)] = torch.tensor(text.context)
    logits = model(input_ids=ids.to(model.device), use_cache=False).logits
    ends = torch.tensor([len(text.context) - 1 for text in texts], device=logits.device)
    log_p = logits[torch.arange(len(texts), device=logits.device), ends].float().log_softmax(-1)
    return -(log_p.exp() * log_p).sum()
