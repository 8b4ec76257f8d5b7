"""A tiny Llama trained for seconds, a word-level tokenizer, and local lm-eval tasks of every kind for it.

The language has 24 words; each has a successor. The model half learns it, so that scores are neither 0 nor 1.
"""

import copy
import json
import random
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

WORDS = [a + b for a in "bdfgkl" for b in "aeio"]
FOLLOWS = dict(zip(WORDS, WORDS[7:] + WORDS[:7], strict=True))
WEIGHTS = Path(__file__).with_name("tiny.safetensors")
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "Q", "A", "."]

YAML = """\
task: {name}
dataset_path: json
dataset_kwargs:
  data_files:
    test: {folder}/{data}.jsonl
    train: {folder}/{shots}.jsonl
test_split: test
metadata:
  version: 1.0
"""
GENERATE = """\
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs:
  until: [" ."]
  max_gen_toks: 6
"""
EXACT = """\
metric_list:
  - metric: exact_match
    aggregation: mean
    higher_is_better: true
"""
CHOICE = """\
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{label}}"
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
TASKS = {
    "tiny_generate": ("questions", GENERATE + EXACT),
    "tiny_shots": (
        "questions",
        GENERATE + EXACT + "num_fewshot: 2\nfewshot_split: train\n",
    ),
    "tiny_filters": (
        "questions",
        GENERATE
        + EXACT
        + """\
filter_list:
  - name: strict
    filter:
      - function: regex
        regex_pattern: "^(\\\\S+ \\\\S+)$"
      - function: take_first
  - name: last
    filter:
      - function: regex
        regex_pattern: "(\\\\S+ \\\\S+)"
        group_select: -1
      - function: take_first
""",
    ),
    "tiny_choice": ("choices", CHOICE),
    "tiny_text": (
        "texts",
        """\
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list:
  - metric: bits_per_byte
  - metric: word_perplexity
""",
    ),
    "tiny_likely": (
        "questions",
        """\
output_type: loglikelihood
doc_to_text: "{{question}}"
doc_to_target: " {{answer}}"
metric_list:
  - {metric: perplexity, aggregation: perplexity, higher_is_better: false}
  - {metric: acc, aggregation: mean, higher_is_better: true}
""",
    ),
    "tiny_f1": ("pairs", CHOICE.replace("metric: acc, aggregation: mean", "metric: f1, aggregation: f1")),
    "tiny_brier": (
        "choices",
        CHOICE.replace("metric: acc, aggregation: mean", "metric: brier_score, aggregation: brier_score"),
    ),
    "tiny_sampled": ("questions", GENERATE + "  do_sample: true\n  temperature: 1.5\n" + EXACT),
    # these must be refused
    "tiny_fixed": ("questions", GENERATE + EXACT + "num_fewshot: 0\n"),
    "tiny_broken": ("missing", GENERATE + EXACT),
    "tiny_unsafe": ("questions", GENERATE + EXACT + "unsafe_code: true\n"),
    "tiny_untold": ("questions", GENERATE.replace("{{question}}", "{{no_such_field}}") + EXACT),
}


def write_tasks(folder: Path, documents: int = 60) -> Path:
    """The task YAMLs and their data."""
    folder.mkdir(parents=True)
    rng = random.Random(0)
    data = {
        "questions": [_question(rng) for _ in range(documents)],
        "shots": [_question(rng) for _ in range(12)],
        "choices": [_choice(rng, 4) for _ in range(documents)],
        "pairs": [_choice(rng, 2) for _ in range(documents)],
        "texts": [{"text": " ".join(_chain(rng, rng.randint(4, 70)))} for _ in range(documents)],
    }
    for name, rows in data.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, (source, rest) in TASKS.items():
        (folder / f"{name}.yaml").write_text(_head(name, folder, source) + rest)
    (folder / "group.yaml").write_text("group: tiny_group\ntask: [tiny_generate, tiny_choice]\n")
    return folder


SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 48,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def write_model(folder: Path) -> Path:
    """A trained model and its tokenizer; context of 48 positions, so that long texts take two windows.

    Its weights lie beside this file: such a model learns its language within a dozen steps, and when these come hangs
    on how a processor rounds, so that one trained on the spot would know all of it here and nothing there.
    """
    tokenizer = _tokenizer()
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **SHAPE))
    weights = load_file(WEIGHTS)
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()}, strict=False)
    model.tie_weights()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def train_model(folder: Path, steps: int, **shape: Any) -> Path:
    """A model of another shape, trained for so many steps, and the tokenizer."""
    tokenizer = _tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), **(SHAPE | shape)))
    optimiser = torch.optim.AdamW(model.parameters(), 5e-3)
    rng = random.Random(1)
    for _ in range(steps):
        ids = torch.tensor([_sentence(tokenizer, rng) for _ in range(16)])
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


CHAT = """\
{{ bos_token }}{% for m in messages %} {{ 'Q' if m['role'] == 'user' else 'A' }} {{ m['content'] }} .{% endfor %}\
{% if add_generation_prompt %} A{% endif %}"""


def write_chat(tokenizer: PreTrainedTokenizerFast, folder: Path, template: str = CHAT) -> PreTrainedTokenizerFast:
    """The tokenizer with a chat template, and with a BOS token that it adds by itself where a text has none."""
    chatting: PreTrainedTokenizerFast = copy.deepcopy(tokenizer)
    chatting.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 1)]
    )
    chatting.chat_template = template
    chatting.save_pretrained(folder)
    return chatting


def _head(name: str, folder: Path, source: str) -> str:
    # both splits of a data set must have the same columns
    return YAML.format(name=name, folder=folder, data=source, shots="shots" if source == "questions" else source)


def _question(rng: random.Random) -> dict[str, str]:
    first, second = rng.choice(WORDS), rng.choice(WORDS)
    return {"question": f"Q {first} {second} A", "answer": f"{FOLLOWS[first]} {FOLLOWS[second]}"}


def _choice(rng: random.Random, choices: int) -> dict[str, Any]:
    row = _question(rng)
    first = row["answer"].split()[0]
    # the wrong ones begin like the right one and may be longer, so that acc and acc_norm differ
    others = [" ".join([first, *rng.choices(WORDS, k=rng.randint(1, 2))]) for _ in range(choices - 1)]
    label = rng.randrange(choices)
    return {"question": row["question"], "choices": [*others[:label], row["answer"], *others[label:]], "label": label}


def _chain(rng: random.Random, words: int) -> list[str]:
    chain = [rng.choice(WORDS)]
    while len(chain) < words:
        chain.append(FOLLOWS[chain[-1]] if rng.random() < 0.8 else rng.choice(WORDS))
    return chain


def _sentence(tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> list[int]:
    words = _chain(rng, 10) if rng.random() < 0.5 else []
    while len(words) < 28:
        row = _question(rng)
        words += [*row["question"].split(), *row["answer"].split(), "."]
    return tokenizer.encode(" ".join(words))[:28]


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {token: i for i, token in enumerate(SPECIAL + WORDS)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
