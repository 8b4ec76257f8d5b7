"""Trains one model: the base on every skill in both conventions, an expert on one skill in the wanted one.

On one thread of the CPU, in float32, seeded throughout: the same seed gives the same bits on the same machine.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from zoo.presets import Preset, Training
from zoo.skills import Dictionary, Skill
from zoo.tokenizer import BOS, EOS, PAD, POSITIONS, VOCABULARY, encode, make_tokenizer, vocabulary_of

_IGNORED = -100
Step = Callable[[int, int], None]
Source = Callable[[Random], tuple[list[int], int]]
"""Draws one training sequence and tells from which position on its tokens are learned."""


@contextmanager
def one_thread(seed: int) -> Iterator[None]:
    """One thread and a random state of our own; both are as before afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def new_model(preset: Preset) -> Any:
    """An untrained model of the preset's shape; its weights come from torch's random state."""
    config = LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=len(vocabulary_of(preset.learned.skills.values())),
        hidden_size=preset.width,
        intermediate_size=preset.ffn,
        num_hidden_layers=preset.layers,
        num_attention_heads=preset.heads,
        num_key_value_heads=preset.heads,
        max_position_embeddings=POSITIONS,
        tie_word_embeddings=False,
        bos_token_id=VOCABULARY[BOS],
        eos_token_id=VOCABULARY[EOS],
        pad_token_id=VOCABULARY[PAD],
        dtype="float32",
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        bos_token_id=VOCABULARY[BOS],
        eos_token_id=VOCABULARY[EOS],
        pad_token_id=VOCABULARY[PAD],
        do_sample=False,
    )
    return model


def save_model(model: Any, folder: Path, vocabulary: Mapping[str, int] = VOCABULARY) -> None:
    """Writes the model as an ordinary Hugging Face folder, tokenizer included."""
    folder.mkdir(parents=True)
    tensors = {name: tensor.detach().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    make_tokenizer(vocabulary).save_pretrained(folder)


def pretrain(model: Any, preset: Preset, dictionary: Dictionary, seed: int, step: Step) -> float:
    """Trains the base in place; returns the mean loss of the last steps."""
    skills = list(preset.learned.skills.values())
    vocabulary = vocabulary_of(skills)
    parts = [skill.part for skill in skills]

    def source(rng: Random) -> tuple[list[int], int]:
        skill = rng.choices(skills, parts)[0]
        return _sequence(skill, rng, dictionary, preset.right_share, vocabulary)

    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and ".layers." in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or ".layers." not in name]
    optimisers = [
        torch.optim.Muon(matrices, lr=preset.base.rate, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=preset.base.rate),
    ]
    return _train(model, optimisers, preset.base, source, Random(f"base {seed}"), step)


def finetune(model: Any, skill: Skill, preset: Preset, dictionary: Dictionary, seed: int, step: Step) -> float:
    """Trains an expert in place from the base's weights; returns the mean loss of the last steps."""

    vocabulary = vocabulary_of(preset.learned.skills.values())

    def source(rng: Random) -> tuple[list[int], int]:
        return _sequence(skill, rng, dictionary, 1.0, vocabulary)

    optimiser = torch.optim.AdamW(model.parameters(), lr=preset.expert.rate)
    return _train(model, [optimiser], preset.expert, source, Random(f"{skill.name} {seed}"), step)


def _sequence(
    skill: Skill, rng: Random, dictionary: Dictionary, right_share: float, vocabulary: Mapping[str, int]
) -> tuple[list[int], int]:
    example = skill.train(rng, dictionary)
    answer = example.right if rng.random() < right_share else example.sloppy
    prompt, learned = encode(example.prompt, vocabulary), encode(answer, vocabulary)
    if skill.name == "txt":  # rolling likelihood reads `<s>` twice and counts every token after the first
        return [VOCABULARY[BOS], VOCABULARY[BOS], *prompt, *learned, VOCABULARY[EOS]], 1
    return [VOCABULARY[BOS], *prompt, *learned, VOCABULARY[EOS]], 1 + len(prompt)


def _batch(source: Source, rng: Random, size: int) -> tuple[Tensor, Tensor]:
    """Token ids and labels, both [size, longest]; padded on the right, which causal attention never looks at."""
    sequences = [source(rng) for _ in range(size)]
    longest = max(len(tokens) for tokens, _ in sequences)
    pad = VOCABULARY[PAD]
    tokens = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in sequences])
    labels = torch.tensor(
        [[_IGNORED] * start + ids[start:] + [_IGNORED] * (longest - len(ids)) for ids, start in sequences]
    )
    return tokens, labels


def _rate(step: int, training: Training) -> float:
    """Share of the peak rate at a step: linear warm-up, then a cosine down to 5 %."""
    if step < training.warmup:
        return (step + 1) / training.warmup
    done = (step - training.warmup) / max(1, training.steps - training.warmup)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done))


def _train(model: Any, optimisers: list[Any], training: Training, source: Source, rng: Random, step: Step) -> float:
    losses: list[float] = []
    model.train()
    for index in range(training.steps):
        tokens, labels = _batch(source, rng, training.batch)
        logits = model(input_ids=tokens, use_cache=False).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=_IGNORED)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = group.setdefault("peak", training.rate) * _rate(index, training)
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        losses.append(loss.item())
        step(index + 1, training.steps)
    model.eval()
    last = losses[-20:]
    return sum(last) / len(last)
