"""The temperature of an expert: of its final norm, as torch alone finds it; models it does not fit; nothing is left."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GemmaConfig,
    GemmaForCausalLM,
    GPTJConfig,
    GPTJForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from evaluation.artefacts.confidence import join, predictions
from evaluation.artefacts.contract import Beat, Subject
from evaluation.artefacts.fisher import drawn
from evaluation.artefacts.temperature import measure_temperature
from evaluation.artefacts.texts import Text
from evaluation.artefacts.workshop import nobody
from merging.artefacts.shelf import MANIFEST
from merging.errors import InvalidModel
from merging.models import ModelSet
from tests.evaluation.artefacts.planted import Bench, a_suite, planted
from tests.evaluation.artefacts.subjects import VOCABULARY, gpt2, ids, llama, request, some_texts, subject_of
from tests.evaluation.conftest import Tiny

NORM = "model.norm.weight"
SMALL = {"num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": VOCABULARY, "hidden_size": 16}
GEMMA = SMALL | {"intermediate_size": 24, "num_key_value_heads": 1, "head_dim": 8}
OPT = SMALL | {"ffn_dim": 24, "max_position_embeddings": 64, "word_embed_proj_dim": 16}
GPTJ = {"n_layer": 1, "n_head": 2, "n_embd": 16, "rotary_dim": 4, "vocab_size": VOCABULARY}


def ready(model: Any) -> Any:
    """The model with a final norm that is neither 0 nor 1 anywhere."""
    generator = torch.Generator().manual_seed(5)
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 1:
            tensor.add_(torch.rand(tensor.shape, generator=generator), alpha=0.5)
        elif "norm" not in name:
            tensor.mul_(4.0)
    return model.eval().requires_grad_(False)


def gemma() -> Any:
    """A random Gemma, whose norms multiply by 1 + weight."""
    torch.manual_seed(0)
    return ready(GemmaForCausalLM(GemmaConfig(**GEMMA)))


def spoken(model: Any, count: int = 30) -> list[Text]:
    """Texts whose answers the model draws itself."""
    return [drawn(model, text, nobody) for text in some_texts(count)]


def measured(subject: Subject) -> tuple[dict[str, Tensor], dict[str, float | int]]:
    """All values and the figures."""
    found = measure_temperature(subject, request("temperature"))
    values = dict(found.values())
    assert [(name, tuple(value.shape)) for name, value in values.items()] == [(n, s) for n, _, s in found.shapes]
    return values, dict(found.figures())


def test_it_is_that_of_the_answers_tokens() -> None:
    model = llama()
    texts = spoken(model)
    values, figures = measured(subject_of(model, texts))
    parts = []
    with torch.no_grad():
        for text in texts:
            logits = model(input_ids=ids(text)).logits[0, len(text.context) - 1 : -1]
            parts.append(predictions(logits, torch.tensor(text.answer)))
    whole = join(parts)
    temperature = whole.best_temperature()
    assert values.keys() == {NORM} and values[NORM].tolist() == pytest.approx([temperature, 0.0], rel=1e-4)
    assert figures == pytest.approx(
        {
            "temperature": temperature,
            "offset": 0.0,
            "tokens": sum(len(text.answer) for text in texts),
            "accuracy": float(whole.correct.double().mean()),
            "nll before": whole.loss(1.0),
            "nll after": whole.loss(temperature),
            "ece before": whole.error(1.0),
            "ece after": whole.error(temperature),
            "confidence before": float(whole.confidence(1.0).mean()),
            "confidence after": float(whole.confidence(temperature).mean()),
        },
        rel=1e-3,
    )
    assert figures["nll after"] < figures["nll before"] and 0.5 < temperature < 2.0


@pytest.mark.parametrize(("model", "offset"), [(llama, 0.0), (gemma, 1.0)])
def test_a_scaled_norm_has_a_scaled_temperature(model: Callable[[], Any], offset: float) -> None:
    live = model()
    texts = spoken(live)
    _, before = measured(subject_of(live, texts))
    norm = live.state_dict()[NORM]
    norm.copy_((norm + offset) * 3.0 - offset)
    values, after = measured(subject_of(live, texts))
    assert after["temperature"] == pytest.approx(3.0 * before["temperature"], rel=1e-3)
    assert after["offset"] == offset and values[NORM][1] == offset
    norm.copy_((norm + offset) / values[NORM][0] - offset)
    assert measured(subject_of(live, texts))[1]["temperature"] == pytest.approx(1.0, rel=1e-3)


def test_a_norm_s_bias_has_the_temperature_too_and_no_offset() -> None:
    model = ready(gpt2())
    texts = spoken(model)
    values, figures = measured(subject_of(model, texts))
    expected = [figures["temperature"], 0.0]
    assert {name: value.tolist() for name, value in values.items()} == {
        "transformer.ln_f.weight": pytest.approx(expected),
        "transformer.ln_f.bias": pytest.approx(expected),
    }
    for name in values:
        model.state_dict()[name].div_(expected[0])
    assert measured(subject_of(model, texts))[1]["temperature"] == pytest.approx(1.0, rel=1e-3)


def test_a_shortage_of_memory_changes_nothing() -> None:
    model = llama()
    texts = spoken(model)
    values, figures = measured(subject_of(model, texts))
    rows: list[int] = []

    def look(module: Any, args: Any, output: Tensor) -> None:
        rows.append(len(output))
        if len(output) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    handle = model.lm_head.register_forward_hook(look)
    again, others = measured(subject_of(model, texts))
    handle.remove()
    assert max(rows) > 2 and others["tokens"] == figures["tokens"]
    torch.testing.assert_close(again[NORM], values[NORM], rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("model", "problem"),
    [
        (lambda: Gemma2ForCausalLM(Gemma2Config(**GEMMA)), r"'gemma2' caps its logits: dividing"),
        (lambda: GPTJForCausalLM(GPTJConfig(**GPTJ)), r"'gptj' adds a bias to its logits: dividing"),
        (lambda: OPTForCausalLM(OPTConfig(do_layer_norm_before=False, **OPT)), r"'opt' has no norms with weights"),
    ],
)
def test_models_whose_norm_does_not_scale_their_logits_are_refused(model: Callable[[], Any], problem: str) -> None:
    with pytest.raises(InvalidModel, match=f"{problem}.*; leave out the method calibrated for such models"):
        measure_temperature(subject_of(ready(model()), some_texts()), request("temperature"))


def test_what_no_config_tells_is_seen() -> None:
    model = llama()
    before = model.state_dict()[NORM].clone()
    handle = model.lm_head.register_forward_hook(lambda module, args, output: output.tanh())
    measurement = measure_temperature(subject_of(model, some_texts()), request("temperature"))
    with pytest.raises(InvalidModel, match=r"does not scale its logits with its final norm \(off by [1-9]"):
        list(measurement.values())
    handle.remove()
    assert torch.equal(model.state_dict()[NORM], before)


class Interrupted(Exception):
    """What a beat raises."""


def beats(count: int) -> Beat:
    left = iter(range(count))

    def beat() -> None:
        if next(left, None) is None:
            raise Interrupted

    return beat


@pytest.mark.parametrize("model", [llama, gemma, gpt2])
@pytest.mark.parametrize("count", [0, 1, 2, 1 << 20])
def test_the_live_model_is_left_as_it_was(model: Callable[[], Any], count: int) -> None:
    live = model().bfloat16()
    before = {name: tensor.clone() for name, tensor in live.state_dict().items()}
    measurement = measure_temperature(subject_of(live, some_texts(), beat=beats(count)), request("temperature"))
    if count < 1 << 20:
        with pytest.raises(Interrupted):
            list(measurement.values())
    else:
        list(measurement.values())
        assert measurement.figures()["offset"] == float(model is gemma)
    assert all(torch.equal(tensor, before[name]) for name, tensor in live.state_dict().items())


@pytest.fixture(scope="module")
def models(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> ModelSet:
    """Two experts that know the same, one of them far surer of it."""

    def change(which: str, tensors: dict[str, Tensor]) -> None:
        generator = torch.Generator().manual_seed(len(which))
        tensors[NORM].add_(torch.randn(tensors[NORM].shape, generator=generator), alpha=0.05)
        if which == "sharp":
            tensors[NORM].mul_(3.0)

    return planted(tmp_path_factory.mktemp("temperature"), tiny, change, "plain", "sharp")


def test_the_merge_of_a_sharp_expert_is_balanced(models: ModelSet, tiny: Tiny, artefacts: Path) -> None:
    bench = Bench(models, a_suite(tiny, "tiny_generate"))
    recipe = bench.recipe("calibrated", documents=20)
    made = bench.workshop.ensure(recipe, bench.suite)
    assert [(one.kind, one.expert) for one in made] == [("temperature", "plain"), ("temperature", "sharp")]
    plain, sharp = (float(bench.workshop.shelf.require(one).figures["temperature"]) for one in made)
    assert sharp > 2.0 * plain
    bench.resident.apply(recipe)
    _, experts = models.stack(NORM)
    found = bench.tensors[NORM].detach().clone()
    torch.testing.assert_close(found, (experts[0] / plain + experts[1] / sharp) / (1 / plain + 1 / sharp))
    others = {name: tensor.detach().clone() for name, tensor in bench.tensors.items() if name != NORM}
    bench.resident.apply(bench.recipe("linear").model_copy(update={"suite": ""}))
    assert all(torch.equal(bench.tensors[name], tensor) for name, tensor in others.items())
    assert float(bench.tensors[NORM].norm() / found.norm()) > 1.2
    manifests = [json.loads(path.read_bytes()) for path in artefacts.glob(f"*/{MANIFEST}")]
    figures = [each["figures"] for each in manifests]
    assert all(each["nll after"] < each["nll before"] for each in figures)  # the fit; ECE of 40 tokens is chance
