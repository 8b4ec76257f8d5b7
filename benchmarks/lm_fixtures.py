"""What the evaluation benchmark measures on: random Llamas of three sizes, a tokenizer, and three tasks.

The language is invented words; nothing is fetched and nothing is trained but the tokenizer (byte-level pairs). The
weights are random, so the scores say nothing and a generation ends at its longest; what a score costs is real.
"""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONTEXT = 1024
WORDS = 16_000

_HEAD = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/{name}.jsonl
    train: {folder}/{name}_shots.jsonl
test_split: test
metadata:
  version: 1.0
"""
_CHOICE = """\
output_type: multiple_choice
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
fewshot_split: train
num_fewshot: 4
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
_GENERATION = """\
output_type: generate_until
doc_to_text: "Question: {{question}}\\nAnswer:"
doc_to_target: " {{answer}}"
fewshot_split: train
num_fewshot: 4
generation_kwargs:
  until: ["\\n\\n", "Question:"]
  do_sample: false
  max_gen_toks: 12
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
"""
_ROLLING = """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: bits_per_byte
  - metric: word_perplexity
"""
KINDS = {"choice": _CHOICE, "generation": _GENERATION, "rolling": _ROLLING}


@dataclass(frozen=True, slots=True)
class Size:
    """A Llama's shape, and how many documents a task has for it.

    Attributes:
        vocabulary: most tokens; the tokenizer finds fewer if the words have no more pairs.
    """

    width: int
    layers: int
    ffn: int
    heads: int
    vocabulary: int
    documents: int


SIZES = {
    "1m": Size(128, 4, 352, 4, 2048, 400),
    "10m": Size(256, 10, 704, 4, 8192, 100),
    "100m": Size(768, 12, 2048, 12, 16384, 20),
}


def make_model(folder: Path, size: Size, seed: int = 0) -> int:
    """Write a model and its tokenizer; how many parameters it has."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(size.vocabulary)
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.width,
            intermediate_size=size.ffn,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            num_key_value_heads=size.heads,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return int(model.num_parameters())


def make_tokenizer(vocabulary: int) -> Any:
    """Byte-level pairs, trained on the invented words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    words = lexicon()
    rng = random.Random(1)
    core.train_from_iterator((_prose(rng, words, 40) for _ in range(6000)), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="<pad>", bos_token="<s>", eos_token="</s>")


def lexicon() -> list[str]:
    """The invented words, common ones first."""
    rng = random.Random(0)
    syllables = [a + b + c for a in "bcdfghklmnprstvz" for b in "aeiou" for c in ("", "n", "r", "s", "l")]
    return ["".join(rng.choices(syllables, k=rng.choice((1, 2, 2, 3, 3, 4)))) for _ in range(WORDS)]


def _prose(rng: random.Random, words: Sequence[str], count: int) -> str:
    # some words are common, most are rare, as in a real text
    return " ".join(words[int(len(words) * rng.random() ** 3)] for _ in range(count))


def make_tasks(folder: Path, documents: int) -> Path:
    """Write the three tasks and their data; tasks of a kind have its name."""
    folder.mkdir(parents=True)
    words = lexicon()
    for kind, rest in KINDS.items():
        rng = random.Random(kind)
        for name, count in ((kind, documents), (f"{kind}_shots", 40)):
            rows = [_document(kind, rng, words) for _ in range(count)]
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (folder / f"{kind}.yaml").write_text(_HEAD.format(name=kind, folder=folder.resolve()) + rest)
    return folder


def _document(kind: str, rng: random.Random, words: Sequence[str]) -> dict[str, Any]:
    if kind == "choice":
        choices = [_prose(rng, words, rng.randint(2, 8)) for _ in range(4)]
        return {"question": _prose(rng, words, rng.randint(6, 14)), "choices": choices, "label": rng.randrange(4)}
    if kind == "generation":
        left, right = rng.randrange(1000), rng.randrange(1000)
        name, thing = rng.choice(words), rng.choice(words)
        return {"question": f"{name} has {left} {thing} and finds {right}. How many?", "answer": str(left + right)}
    return {"text": _prose(rng, words, rng.randint(40, 300))}
