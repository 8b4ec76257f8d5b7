"""Permutes the rows of vocabulary-sized tensors into the output's order, one tensor at a time.

A row that a model lacks is the base's; one that the base lacks is its single owner's, or the mean of its owners'
(mergekit fills in this order too). So a model without a token has no delta in that token's row, and a token
that one expert alone has keeps that expert's row under every method that leaves equal models as they are.
"""

import re
from collections.abc import Sequence

import torch
from torch import Tensor

# Input embeddings: embed_tokens, wte, shared, word_embeddings, tok_embeddings, embed_in, (backbone.)embeddings …
_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|embed_tokens_per_layer|embed_in|embeddings?|wte|shared|word_embeddings|tok_embeddings"
    r"|token_embedding)\.weight$"
)
# Heads and their biases; `output` and `head` stand at the top of the model only, elsewhere they are layers.
_HEAD = re.compile(
    r"(^|\.)(lm_head|lm_head\.decoder|embed_out|cls\.predictions|cls\.predictions\.decoder|vocab_projector"
    r"|generator_lm_head|predictions\.decoder)\.(weight|bias)$|^(output|head)\.(weight|bias)$"
    r"|(^|\.)final_logits_bias$"
)


def is_embedding(name: str) -> bool:
    """Whether a tensor is called like an input embedding."""
    return _EMBEDDING.search(name) is not None


def is_vocabulary(name: str) -> bool:
    """Whether a tensor is called like an input embedding, a head, or a head's bias."""
    return is_embedding(name) or _HEAD.search(name) is not None


def vocabulary_axis(name: str, shape: Sequence[int], rows: int) -> int | None:
    """The dimension of a tensor that runs over the vocabulary; None if it has none.

    Args:
        name, shape: the tensor's.
        rows: rows of the model's embedding; tensors of another size are not the vocabulary's.
    """
    if not is_vocabulary(name):
        return None
    axis = len(shape) - 1 if name.endswith("bias") else 0  # final_logits_bias is [1, rows]
    return axis if shape and shape[axis] == rows else None


def aligned(tensor: Tensor, index: Tensor, fill: Tensor | None, axis: int = 0) -> Tensor:
    """The tensor's rows in another order; the tensor itself, not a copy, if the order is its own.

    Args:
        tensor: [..., rows_in, ...] along `axis`.
        index: int64 [rows_out], a row of the tensor or -1 for one it lacks.
        fill: [..., rows_out, ...], where missing rows come from; None: they are zero.

    Returns:
        [..., rows_out, ...] of the tensor's dtype.
    """
    if len(index) == tensor.shape[axis] and torch.equal(index, torch.arange(len(index))):
        return tensor
    found = tensor.index_select(axis, index.clamp(min=0))
    missing = (index < 0).nonzero().squeeze(1)
    if len(missing):
        if fill is None:
            found.index_fill_(axis, missing, 0)
        else:
            found.index_copy_(axis, missing, fill.index_select(axis, missing).to(found.dtype))
    return found


def aligned_stack(
    base: Tensor, experts: Sequence[Tensor], index: Tensor, indices: Sequence[Tensor], axis: int = 0
) -> tuple[Tensor, list[Tensor]]:
    """One vocabulary-sized tensor of every model, all in the output's order and free of gaps.

    Args:
        base, experts: the tensor in each model, [..., its rows, ...] along `axis`.
        index, indices: `Alignment.base`, and `Alignment.experts` in the order of `experts`.

    Returns:
        The base's and the experts' tensors, [..., rows_out, ...], each of its own dtype.
    """
    filled = aligned(base, index, None, axis)
    missing = (index < 0).nonzero().squeeze(1)
    if len(missing):
        filled.index_copy_(axis, missing, _owners(experts, indices, missing, axis).to(filled.dtype))
    return filled, [aligned(each, rows, filled, axis) for each, rows in zip(experts, indices, strict=True)]


def _owners(experts: Sequence[Tensor], indices: Sequence[Tensor], missing: Tensor, axis: int) -> Tensor:
    """The mean of the rows `missing` over the experts that have them; zero where none has."""
    dtype = torch.promote_types(torch.float32, experts[0].dtype)
    shape = list(experts[0].shape)
    shape[axis] = len(missing)
    total, count = torch.zeros(shape, dtype=dtype), torch.zeros(len(missing), dtype=dtype)
    for each, rows in zip(experts, indices, strict=True):
        own = (rows[missing] >= 0).nonzero().squeeze(1)
        total.index_add_(axis, own, each.index_select(axis, rows[missing[own]]).to(dtype))
        count[own] += 1
    view = [1] * len(shape)
    view[axis] = len(missing)
    return total / count.clamp(min=1).view(view)
