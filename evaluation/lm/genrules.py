"""Which requests our greedy loop may answer: those where it gives stock's text; the others go to stock's own loop."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs
from transformers import DynamicCache, GenerationMixin
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

_NAMES_ONLY = {"_from_model_config", "transformers_version", "bos_token_id", "eos_token_id", "pad_token_id"}
_SAMPLING = {"temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"}
# lm-eval's loop gives these two itself
_OVERRULED = {"do_sample", "max_length"}
_NEUTRAL = {
    "use_cache": True,
    "cache_implementation": "hybrid",
    "num_beams": 1,
    "num_beam_groups": 1,
    "num_return_sequences": 1,
    "repetition_penalty": 1.0,
    "encoder_repetition_penalty": 1.0,
    "length_penalty": 1.0,
    "diversity_penalty": 0.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "min_length": 0,
    "min_new_tokens": 0,
}
_CHANGING_ROPE = {"dynamic", "longrope"}  # angles that depend on the longest row of a batch


@dataclass(frozen=True)
class Wish:
    """What a request asks of a greedy answer.

    Attributes:
        until: strings that end it, lm-eval's end-of-text string among them, in lm-eval's order.
        most: the most tokens.
    """

    until: tuple[str, ...]
    most: int


def wish(settings: Mapping[str, Any], most: int, end: str) -> Wish | None:
    """A request's generation settings, by lm-eval's own rules.

    Args:
        most: tokens of an answer where the request says nothing.
        end: the end-of-text string.

    Returns:
        None if the answer is not a plain greedy one.
    """
    rest = dict(normalize_gen_kwargs(dict(settings), most))
    until, longest = handle_stop_sequences(rest.pop("until"), eos=end), rest.pop("max_gen_toks")
    greedy = rest.pop("do_sample") is False and not any(_matters(*each) for each in rest.items())
    texts = all(isinstance(string, str) for string in until)
    return Wish(tuple(until), longest) if greedy and texts and longest > 0 else None


def obstacle(model: Any) -> str | None:
    """Why our loop may not run this model, or None. Looks at its kind and its generation settings only."""
    if model.config.is_encoder_decoder:
        return "it is an encoder-decoder"
    for name in ("generate", "prepare_inputs_for_generation"):
        if getattr(type(model), name, None) is not getattr(GenerationMixin, name):
            return f"it has a `{name}` of its own"
    if "past_key_values" not in inspect.signature(model.forward).parameters or model.get_output_embeddings() is None:
        return "its forward pass is not the usual one"
    config = model.config.get_text_config(decoder=True)
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = {each.get("rope_type") for each in (rope, *rope.values()) if isinstance(each, dict)}  # may be by layer type
    if kinds & _CHANGING_ROPE or getattr(config, "attention_chunk_size", None):
        return "its positions depend on the length of the batch"
    if any(
        type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer) for layer in DynamicCache(config=config).layers
    ):
        return "its layers keep other state than keys and values"
    for name, value in model.generation_config.to_diff_dict().items():
        if name not in _NAMES_ONLY | _OVERRULED and _matters(name, value):
            return f"its generation settings have {name}: {value}"
    return None


def ends(model: Any) -> frozenset[int]:
    """The token ids that end an answer by the model's generation settings."""
    tokens = model.generation_config.eos_token_id
    return frozenset() if tokens is None else frozenset([tokens] if isinstance(tokens, int) else tokens)


def _matters(name: str, value: Any) -> bool:
    """Whether a setting could change a greedy answer."""
    harmless = value is None or value is False or name in _SAMPLING
    return not harmless and not (name in _NEUTRAL and _NEUTRAL[name] == value)
