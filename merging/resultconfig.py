"""The config.json of a result: the base's, with what the merge changed."""

import json
from collections.abc import Sequence
from typing import Any

from merging.arrangement import Arrangement
from merging.configfile import tied
from merging.layers import COUNTS
from merging.models import ModelSet
from merging.vocabulary.ids import translated


def result_config(models: ModelSet, dtype: str | None, arrangement: Arrangement) -> dict[str, Any]:
    """config.json with the vocabulary, the dtype, the tie and the layers that the weights have.

    Args:
        dtype: what the result is stored in; None: as the base is.
        arrangement: the result's layers.
    """
    config: dict[str, Any] = json.loads(json.dumps(models.base.config))
    own = models.experts[models.tokenizer].config if models.tokenizer in models.experts else {}
    config = translated(config, models.alignment, own)
    tied(config, models.base)
    if arrangement.stacked:
        _restack(config, arrangement.origins, models.layout.layer_count)
    if dtype:
        _store_as(config, dtype)
    return config


def _store_as(config: dict[str, Any], dtype: str) -> None:
    for part in _parts(config):
        for field in ("dtype", "torch_dtype"):
            if field in part:
                part[field] = dtype
    if not {"dtype", "torch_dtype"} & set(config):
        config["dtype"] = dtype


def _restack(config: dict[str, Any], origins: Sequence[int], count: int) -> None:
    """Numbers of layers become the result's, and lists with an entry a layer are taken apart as the layers are."""
    for part in _parts(config):
        for key, value in part.items():
            if key in COUNTS and value == count:
                part[key] = len(origins)
            elif isinstance(value, list) and len(value) == count and key.endswith(("layers", "types")):
                part[key] = [value[origin] for origin in origins]


def _parts(config: dict[str, Any]) -> list[dict[str, Any]]:
    """A config and the configs inside it."""
    return [config, *(value for value in config.values() if isinstance(value, dict))]
