"""Small real tokenizers and Llamas with vocabularies of their own, and a merge written out as a folder."""

import json
import random
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from merging.checkpoint import SINGLE, Checkpoint
from merging.vocabulary.alignment import Alignment
from merging.vocabulary.files import output_files
from merging.vocabulary.ids import translated
from merging.vocabulary.opening import align, embedding_rows
from merging.vocabulary.reading import read_json
from merging.vocabulary.rows import aligned_stack, vocabulary_axis
from merging.vocabulary.tokens import Vocabulary

TEXTS = ("the cat sat on the mat", "a dog ran over the hill", "tokens become rows of numbers")
SPECIAL = ["<unk>", "<s>", "</s>"]
KINDS = ("bpe", "wordpiece", "unigram")


def vocabulary(
    tokens: Mapping[str, int] | Sequence[str], rows: int | None = None, added: Sequence[str] = ()
) -> Vocabulary:
    """A vocabulary of these strings; those in `added` are added tokens."""
    ids = dict(tokens) if isinstance(tokens, Mapping) else {token: row for row, token in enumerate(tokens)}
    flags = {flag: flag == "special" for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")}
    size = max(ids.values()) + 1
    return Vocabulary(ids, {token: flags for token in added}, rows or size, Path("models/x"), "models.x")


def core(kind: str) -> Any:
    """A tokenizer of the kind: byte-level BPE, WordPiece or Unigram; every call gives another, equal one."""
    if kind == "bpe":
        return Tokenizer.from_str(_trained_bpe())
    pieces = [
        *SPECIAL,
        *"abcdefghijklmnopqrstuvwxyz",
        *sorted({word for text in TEXTS for word in text.split()} - {"a"}),
    ]
    if kind == "wordpiece":  # its trainer orders tokens at random
        tokens = [*pieces, *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
        made = Tokenizer(models.WordPiece({token: row for row, token in enumerate(tokens)}, unk_token="<unk>"))
        made.pre_tokenizer, made.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    else:
        scored = [(piece, -float(row)) for row, piece in enumerate([*pieces, "▁", "▁the", "▁cat", "▁of"])]
        made = Tokenizer(models.Unigram(scored, unk_id=0))
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    made.add_special_tokens(SPECIAL)
    return made


@cache
def _trained_bpe() -> str:
    made = Tokenizer(models.BPE())
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    letters = list("abcdefghijklmnopqrstuvwxyzĠ")
    trainer = trainers.BpeTrainer(vocab_size=90, initial_alphabet=letters, special_tokens=SPECIAL, show_progress=False)
    made.train_from_iterator(TEXTS * 4, trainer)
    return str(made.to_str())


def tokenizer(made: Any, added: Sequence[str] = (), template: str | None = None) -> Any:
    """The tokenizer as transformers has it, with special tokens added as fine-tuners add them."""
    found = PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    found.add_tokens([AddedToken(token, special=True, normalized=False) for token in added])
    found.chat_template = template
    return found


def llama(seed: int, rows: int, *, tied: bool = False, bos: int = 1, eos: int = 2) -> Any:
    """A random Llama of two layers with so many rows."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=tied,
        bos_token_id=bos,
        eos_token_id=eos,
    )
    return LlamaForCausalLM(config).eval()


def write(folder: Path, model: Any, words: Any) -> Path:
    """Model and tokenizer in one folder."""
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def permuted(source: Path, target: Path, seed: int) -> Path:
    """The same model under another order of tokens: tokenizer, weights and configuration say so."""
    content = json.loads((source / "tokenizer.json").read_text())
    vocab, rows = content["model"]["vocab"], read_json(source / "config.json", "x")["vocab_size"]
    order = list(range(len(vocab)))
    random.Random(seed).shuffle(order)  # the token of row i goes to row order[i]
    target.mkdir()
    if isinstance(vocab, dict):
        content["model"]["vocab"] = {token: order[row] for token, row in vocab.items()}
    else:
        content["model"]["vocab"] = [vocab[order.index(row)] for row in range(len(vocab))]
        content["model"]["unk_id"] = order[content["model"]["unk_id"]]
    for entry in content["added_tokens"]:
        entry["id"] = order[entry["id"]] if entry["id"] < len(order) else entry["id"]
    content["added_tokens"].sort(key=lambda entry: entry["id"])
    (target / "tokenizer.json").write_text(json.dumps(content))
    (target / "tokenizer_config.json").write_bytes((source / "tokenizer_config.json").read_bytes())
    inverse = torch.tensor([order.index(row) for row in range(len(order))] + list(range(len(order), rows)))
    tensors = load_file(source / SINGLE)
    moved = {name: t[inverse].contiguous() if t.shape[0] == rows else t for name, t in tensors.items()}
    save_file(moved, target / SINGLE, {"format": "pt"})
    config = read_json(source / "config.json", "x")
    config |= {key: order[config[key]] for key in ("bos_token_id", "eos_token_id")}
    (target / "config.json").write_text(json.dumps(config))
    return target


def merge(
    base: Path, experts: Mapping[str, Path], to: Path, choice: str = "base", weight: float = 0.5
) -> Alignment | None:
    """Writes theta_0 + weight * sum(X_t - theta_0) over the aligned models; what aligned them."""
    ancestor = Checkpoint(base, "models.base")
    opened = {name: Checkpoint(experts[name], f"models.{name}") for name in sorted(experts)}
    alignment = align(ancestor, opened, choice)
    merged = {}
    for name in ancestor.names:
        stack = [ancestor.tensor(name), *(each.tensor(name) for each in opened.values())]
        axis = vocabulary_axis(name, stack[0].shape, embedding_rows(ancestor))
        if alignment is not None and axis is not None:
            first, others = aligned_stack(stack[0], stack[1:], alignment.base, [*alignment.experts.values()], axis)
            stack = [first, *others]
        merged[name] = stack[0] + weight * sum(each - stack[0] for each in stack[1:])
    to.mkdir()
    save_file(merged, to / SINGLE, {"format": "pt"})
    own = opened[choice].config if choice in opened else {}
    (to / "config.json").write_text(json.dumps(translated(ancestor.config, alignment, own)))
    for name, content in output_files(choice, base, experts, alignment).items():
        (to / name).parent.mkdir(exist_ok=True)
        (to / name).write_bytes(content)
    return alignment
