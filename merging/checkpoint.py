"""A Hugging Face model folder, read without copying: config.json and safetensors, whole or in shards.

Never unpickles. Everything wrong with a folder is an InvalidModel that names the key under which the caller was
given it. Does not know layers (`layers.py`) and compares no models (`models.py`).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from merging.errors import InvalidModel
from merging.fingerprint import FingerprintCache, NonFinite, fingerprint
from merging.shard import Entry, Shard

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# Buffers that older versions of transformers stored and every version computes: not part of the model.
_DERIVED = re.compile(r"rotary_emb\.inv_freq$|\.position_ids$|\.masked_bias$|\.embeddings\.token_type_ids$")
_MASK = re.compile(r"\.att(n|ention)\.bias$")  # GPT-2's and GPT-NeoX's causal mask [1, 1, n, n]
_HEAD = re.compile(
    r"(^|\.)(\w*lm_head|embed_out|proj_out|output_projection|vocab_projector|lm_loss|(lm_head|head|predictions)\.decoder)"
    r"\.weight$|^(head|decoder)\.weight$"
)
_HEAD_BIAS = re.compile(r"(?<=\.)decoder\.(?=bias$)")  # cls.predictions.decoder.bias repeats cls.predictions.bias
_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|embed_in|embeddings?|tok_embeddings|token_embeddings?|tokens_embed|word_embeddings?|wte|shared)"
    r"\.weight$"
)
_STACK_EMBEDDING = re.compile(r"(^|\.)(encoder|decoder)\.embed_tokens\.weight$")
# transformers writes "tied" into the configs of these, also for those that have a head of their own (T5 1.1, mT5).
_ALWAYS_SAY_TIED = frozenset({"t5", "mt5", "umt5", "longt5", "udop", "pop2piano"})


class Checkpoint:
    """One model folder, opened: its header is checked, its numbers are read when asked for.

    Args:
        path: the folder.
        key: where it is named (`models.base`, `models.experts[1]`), for messages.

    Attributes:
        config: config.json.
        shards: the weight files by name, in the order of the base's index.
        tied: tensors left out because they repeat another one, and that other one.

    Raises:
        InvalidModel: missing, pickled, an adapter, quantised, truncated, corrupted or incomplete.
    """

    def __init__(self, path: Path, key: str = "model") -> None:
        self.path, self.key = path, key
        self.config = _config(path, key)
        self.shards = _shards(path, key)
        self._home = {
            entry.name: shard
            for shard in self.shards.values()
            for entry in shard.entries.values()
            if not is_derived(entry.name, entry.shape)
        }
        self.tied = self._find_tied()
        for alias in self.tied:
            del self._home[alias]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Every tensor's name, sorted; tied aliases and computed buffers left out."""
        return tuple(sorted(self._home))

    @property
    def ties_head(self) -> bool:
        """Whether a stored head was left out because it repeats the embedding."""
        return any(_HEAD.search(name) for name in self.tied)

    def entry(self, name: str) -> Entry:
        """The tensor's dtype and shape, without reading it."""
        return self._home[name].entries[name]

    def tensor(self, name: str) -> Tensor:
        """The tensor as a view of the file; do not write to it."""
        return self._home[name].tensor(name)

    def held(self, name: str) -> Tensor:
        """The tensor as it is kept: itself (`merging.expert`)."""
        return self.tensor(name)

    def files(self) -> Iterator[tuple[str, tuple[Entry, ...]]]:
        """Each weight file's name and its tensors in the order of their bytes; aliases left out."""
        for name, shard in self.shards.items():
            yield name, tuple(e for e in shard.entries.values() if self._home.get(e.name) is shard)

    def fingerprint(self, cache: FingerprintCache | None = None) -> str:
        """Content fingerprint, 32 hex digits; reads every byte unless the cache knows it.

        Raises:
            InvalidModel: a tensor holds NaN or infinity.
        """
        stats = [(shard.path, shard.path.stat()) for shard in self.shards.values()]
        lines = [f"{path.name}:{stat.st_size}:{stat.st_mtime_ns}" for path, stat in stats]
        key = "|".join([str(self.path.resolve()), *lines])
        known = cache.get(key) if cache is not None else None
        if known:
            return known
        try:
            found = fingerprint((n, self.tensor(n), self._home[n].bytes(n)) for n in self.names)
        except NonFinite as error:
            problem = f"has NaN or infinity in tensor {error}"
            raise InvalidModel(self.key, str(self.path), problem, "use a checkpoint that trained to the end") from error
        if cache is not None:
            cache.put(key, found)
        return found

    def _find_tied(self) -> dict[str, str]:
        """Aliases: the head and its bias where the config ties them, T5's two embeddings where they are equal."""
        flag = tie_flag(self.config)
        words = sorted((n for n in self._home if _EMBEDDING.search(n)), key=lambda n: (n.count("."), n))
        tied = {}
        for name in sorted(self._home):
            original = self._original(name, words)
            if original is None or (flag is False and not _STACK_EMBEDDING.search(name)):
                continue
            if torch.equal(self.tensor(name), self.tensor(original)):
                tied[name] = original
            elif flag and _HEAD.search(name):
                problem = f"says tie_word_embeddings, but {name} differs from {original}"
                remedy = "set tie_word_embeddings to false in its config.json, or save the model again"
                raise InvalidModel(self.key, str(self.path), problem, remedy)
        return tied

    def _original(self, name: str, words: Sequence[str]) -> str | None:
        """The tensor that this one would repeat if it is tied; `words` are the embeddings of tokens."""
        if _STACK_EMBEDDING.search(name):
            words = [word for word in words if word.endswith("shared.weight")]
        elif not _HEAD.search(name):
            plain = _HEAD_BIAS.sub("", name)
            return plain if plain != name and plain in self._home else None
        shape = self.entry(name).shape
        return next((word for word in words if word != name and self.entry(word).shape == shape), None)


def tie_flag(config: Mapping[str, Any]) -> bool | None:
    """What config.json says of tied embeddings; None where it says nothing that holds."""
    text = config.get("text_config")
    nested = text.get("tie_word_embeddings") if isinstance(text, dict) else None
    flag = config.get("tie_word_embeddings", nested)
    if flag is None or (flag and config.get("model_type") in _ALWAYS_SAY_TIED):
        return None
    return bool(flag)


def is_derived(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is a buffer that the model computes by itself (masks, rotary frequencies, positions)."""
    return _DERIVED.search(name) is not None or (len(shape) == 4 and _MASK.search(name) is not None)


def _config(path: Path, key: str) -> dict[str, Any]:
    shown = str(path)
    if not path.is_dir():
        problem = "is a file, not a folder" if path.exists() else "does not exist"
        raise InvalidModel(key, shown, problem, "give the folder of a Hugging Face checkpoint")
    full = (path / "config.json").exists() and ((path / SINGLE).exists() or (path / INDEX).exists())
    if (path / "adapter_config.json").exists() and not full:
        remedy = "give it as an expert; as a base, merge it first: peft's merge_and_unload(), then save_pretrained()"
        raise InvalidModel(key, shown, "is a LoRA adapter, not a full checkpoint", remedy)
    if not (path / "config.json").exists():
        raise InvalidModel(key, shown, "has no config.json", "give the folder that save_pretrained() wrote")
    config = _json(path / "config.json", key)
    if config.get("quantization_config"):
        raise InvalidModel(key, shown, "is quantised", "merge the full-precision checkpoint, then quantise the result")
    return config


def _shards(path: Path, key: str) -> dict[str, Shard]:
    """The weight files, opened. The single file comes first, as it does for transformers."""
    if (path / SINGLE).exists():
        return {SINGLE: Shard(path / SINGLE, key)}
    if not (path / INDEX).exists():
        pickles = sorted(file.name for pattern in _PICKLES for file in path.glob(pattern))
        problem = f"is a pickle checkpoint ({pickles[0]})" if pickles else f"holds no weights (no {SINGLE})"
        remedy = "convert it to safetensors: load it with transformers and save_pretrained() it"
        raise InvalidModel(key, str(path), problem, remedy if pickles else "give a folder with safetensors weights")
    weights = _json(path / INDEX, key).get("weight_map")
    if not isinstance(weights, dict) or not all(isinstance(v, str) and Path(v).name == v for v in weights.values()):
        raise InvalidModel(key, str(path / INDEX), "has no usable weight_map", "copy or download the folder again")
    shards = {}
    for file in sorted(set(weights.values())):
        if not (path / file).exists():
            problem = f"misses the shard {file} that its index names"
            raise InvalidModel(key, str(path), problem, "copy or download the folder again")
        shards[file] = Shard(path / file, key)
    for name, file in weights.items():
        if name not in shards[file].entries:
            problem = f"misses the tensor {name} that its index places in {file}"
            raise InvalidModel(key, str(path), problem, "copy or download the folder again")
    return shards


def _json(path: Path, key: str) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InvalidModel(key, str(path), f"cannot be read ({error})", "copy or download the folder again") from error
    if not isinstance(content, dict):
        raise InvalidModel(key, str(path), "is not a JSON object", "copy or download the folder again")
    return content
