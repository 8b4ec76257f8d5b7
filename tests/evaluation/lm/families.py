"""Tiny random models of many architectures with one tokenizer, and requests that reach the corners."""

import random
from types import SimpleNamespace
from typing import Any

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

WINDOW = 48
_VOCABULARY = 40
_BASE = {
    "vocab_size": _VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "initializer_range": 0.3,  # far from uniform, so that a wrong mask or position shows
}
_LLAMA = _BASE | {"intermediate_size": 64, "max_position_embeddings": WINDOW, "num_key_value_heads": 1}
_SLIDING = _LLAMA | {"head_dim": 16, "sliding_window": 24}
_GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": WINDOW, "bos_token_id": 1, "eos_token_id": 2}
_OPT = {"ffn_dim": 64, "max_position_embeddings": WINDOW, "word_embed_proj_dim": 32, "init_std": 0.3}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", _LLAMA),
    "qwen2": ("Qwen2Config", _LLAMA),
    "gpt2": ("GPT2Config", _GPT2 | {"vocab_size": _VOCABULARY, "initializer_range": 0.3}),
    "gpt_neox": ("GPTNeoXConfig", _BASE | {"intermediate_size": 64, "max_position_embeddings": WINDOW}),
    "mistral": ("MistralConfig", _SLIDING),
    "gemma2": ("Gemma2Config", _SLIDING),
    "opt": ("OPTConfig", _BASE | _OPT),
    "mamba": ("MambaConfig", {"vocab_size": _VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "falcon_alibi": ("FalconConfig", _BASE | {"alibi": True, "max_position_embeddings": WINDOW}),
    "bloom": ("BloomConfig", {"vocab_size": _VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 2}),
}
PLAIN = {"mamba", "falcon_alibi", "bloom"}
"""Families whose sequences must not share a row."""


def make(family: str) -> tuple[Any, Any]:
    """A random model of the family, and the tokenizer: words w0 to w35, one token each."""
    name, settings = FAMILIES[family]
    torch.manual_seed(0)
    model = tf.AutoModelForCausalLM.from_config(getattr(tf, name)(**settings)).eval()
    words = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{i}" for i in range(_VOCABULARY - 4))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = tf.PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=WINDOW, **special)
    return model, tokenizer


def request(*args: str) -> Any:
    """What the language model sees of an lm-eval instance."""
    return SimpleNamespace(args=args, task_name="own")


def choices() -> list[Any]:
    """Four continuations of each context: short, long, equal, beginning alike; contexts empty, shared, too long."""
    rng = random.Random(0)
    shots = _words(rng, 14)
    asked = []
    for number in range(12):
        context = (f"{shots} " if number % 2 else "") + _words(rng, rng.randint(1, 20))
        answers = [_words(rng, rng.choice((1, 1, 2, 3, 6))) for _ in range(4)]
        if number == 3:
            answers[1] = answers[0]
        if number == 5:
            answers = [f"{answers[0]} {answer}" for answer in answers]
        if number == 6:
            context = _words(rng, WINDOW + 9)
        if number == 7:
            answers[2] = _words(rng, WINDOW)
        if number in (8, 9):
            context = ""
        if number == 9:
            answers[0] = f"<s> {answers[0]}"
        asked += [request(context, f" {answer}" if context else answer) for answer in answers]
    return asked


def texts() -> list[Any]:
    """Texts of less than a window, exactly one, one more, and several."""
    rng = random.Random(1)
    lengths = (1, 5, 30, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 3 * WINDOW + 2, 20, 21)
    return [request(_words(rng, length)) for length in lengths]


def _words(rng: random.Random, count: int) -> str:
    return " ".join(f"w{rng.randrange(_VOCABULARY - 4)}" for _ in range(count))
