"""Label-free measures: hand-worked numbers, the bounds of the paper, and batches that change nothing."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from evaluation.evaluators.contract import Subject
from evaluation.evaluators.load import load_evaluator, proxy_evaluator
from evaluation.evaluators.proxies import Proxy, entropies, matrix_nuclear_norm
from evaluation.evaluators.states import hidden_states, logits
from evaluation.scorer import Scorer
from evaluation.spec import PROXY, PROXY_PROMPTS, ProxySpec, TaskSpec
from evaluation.suite import Suite
from tests.evaluation.conftest import BATCH, KEY, Tiny

TEXTS = ["ba be bi bo", "da de", "fa", "ga ge gi go ka ke ki ko la", "ba " * 100]


def test_entropies_by_hand() -> None:
    sure = [0.0, -math.inf, -math.inf, -math.inf]
    logits = torch.tensor([[1.0] * 4, sure, [0.0, 0.0, -math.inf, -math.inf]])
    assert entropies(logits).tolist() == pytest.approx([math.log(4), 0.0, math.log(2)])


def test_the_matrix_nuclear_norm_by_hand() -> None:
    # centred: rows (±1, 0) and (0, ±1); column norms sqrt(2) each; over 4 tokens
    states = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]) + 5.0
    assert matrix_nuclear_norm(states) == pytest.approx(2 * math.sqrt(2) / 4)
    assert matrix_nuclear_norm(states * 7) == pytest.approx(2 * math.sqrt(2) / 4)  # rows are made one long
    assert matrix_nuclear_norm(torch.ones(3, 4)) == 0.0 and matrix_nuclear_norm(torch.ones(1, 4)) == 0.0


def test_the_matrix_nuclear_norm_lies_between_the_nuclear_norm_and_its_bound() -> None:
    states = torch.randn(40, 12, generator=torch.Generator().manual_seed(0))
    rows = torch.nn.functional.normalize(states - states.mean(0), dim=1)
    nuclear = float(torch.linalg.svdvals(rows).sum()) / 40
    assert nuclear <= matrix_nuclear_norm(states) <= math.sqrt(40 * 12) / 40


@pytest.mark.parametrize("last", [None, 1, 3])
def test_entropy_is_that_of_the_model_s_own_distributions(
    live: tuple[Any, Any], subject_of: Callable[..., Subject], last: int | None
) -> None:
    model, tokenizer = live
    expected = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt").input_ids[:, -48:]
        with torch.no_grad():
            p = model(ids).logits[0].softmax(-1)
        each = -(p * p.log()).sum(-1)
        expected.append(float(each[-(last or len(each)) :].mean()))
    done: list[int] = []
    found = Proxy("e", "entropy", TEXTS, last).answer(range(len(TEXTS)), subject_of(done.append))
    assert found == pytest.approx(expected, abs=1e-5) and done[-1] == len(TEXTS)


def test_no_more_rows_go_together_than_the_study_says(
    live: tuple[Any, Any], subject_of: Callable[..., Subject]
) -> None:
    rows: list[int] = []
    handle = live[0].register_forward_pre_hook(
        lambda module, args, kwargs: rows.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    try:
        Proxy("e", "entropy", ["ba be"] * (2 * BATCH + 1), 1).answer(range(2 * BATCH + 1), subject_of())
    finally:
        handle.remove()
    assert rows == [BATCH, BATCH, 1]


def test_the_norm_is_that_of_the_last_states(live: tuple[Any, Any], subject_of: Callable[..., Subject]) -> None:
    model, tokenizer = live
    expected = []
    for text in TEXTS:
        ids = tokenizer(text, return_tensors="pt").input_ids[:, -48:]
        with torch.no_grad():
            expected.append(matrix_nuclear_norm(model.model(ids).last_hidden_state[0]))
    task = Proxy("n", "matrix_nuclear_norm", TEXTS)
    assert task.answer([0, 1, 2, 3, 4], subject_of()) == pytest.approx(expected, abs=1e-5)
    assert task.answer([3, 0], subject_of()) == pytest.approx([expected[3], expected[0]], abs=1e-5)
    assert not task.higher_is_better


def test_a_trained_model_is_surer_than_a_blurred_one(
    live: tuple[Any, Any], tiny: Tiny, subject_of: Callable[..., Subject]
) -> None:
    task = load_evaluator(TaskSpec(name="e", kind="entropy", path="tasks/texts.jsonl"), tiny.root, "key")
    trained = task.aggregation.function(task.answer(range(10), subject_of()))
    weight = live[0].get_input_embeddings().weight  # tied to the output layer
    with torch.no_grad():
        weight.mul_(0.5)
        blurred = task.aggregation.function(task.answer(range(10), subject_of()))
        weight.mul_(2.0)
    assert trained < blurred < math.log(31) + 1e-4


@pytest.mark.parametrize("kind", ["entropy", "matrix_nuclear_norm"])
def test_the_proxy_of_a_study_reads_search_prompts_alone(tiny: Tiny, live: tuple[Any, Any], kind: Any) -> None:
    spec = tiny.spec("tiny_choice", "tiny_text").model_copy(update={"proxy": ProxySpec(kind=kind)})
    suite = Suite.load(spec, tiny.root, KEY)
    proxy = suite.tasks[-1]
    assert proxy.name == PROXY and not suite.documents(PROXY, "holdout")
    assert 0 < len(suite.documents(PROXY, "search")) == len(proxy.documents) <= PROXY_PROMPTS
    choice = suite.tasks[0]
    held = {choice.documents[i]["question"] for i in suite.documents("tiny_choice", "holdout")}
    searched = {choice.documents[i]["question"] for i in suite.documents("tiny_choice", "search")}
    asked = {d["text"] for d in proxy.documents if d["text"].startswith("Q ")}
    assert asked and asked <= searched and not asked & (held - searched)
    scores, _ = Scorer(suite, *live, "cpu", BATCH).score(suite.wanted("search"))
    assert scores[-1].metric == kind and math.isfinite(scores[-1].value)


def test_a_proxy_has_what_the_racing_needs() -> None:
    proxy = proxy_evaluator(ProxySpec(kind="entropy"), ["a", "b"])
    assert (proxy.name, len(proxy.documents), proxy.higher_is_better) == ("proxy", 2, False)


ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "gemma2": {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1}
    | {"intermediate_size": 32, "head_dim": 8, "sliding_window": 4, "final_logit_softcapping": 0.5},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_batches_change_nothing_whatever_the_architecture(name: str) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(name, vocab_size=40, **ARCHITECTURES[name])).eval()
    model.get_output_embeddings().weight.data.mul_(30)  # far from uniform
    rows = [list(range(1, 12)), [5, 6], [7], list(range(20, 27))]
    together, states = logits(rows, model, None), hidden_states(rows, model)
    for row, found, state in zip(rows, together, states, strict=True):
        with torch.no_grad():
            alone = model(torch.tensor([row]), use_cache=False).logits[0]
        assert torch.allclose(found, alone, atol=1e-4)
        assert torch.allclose(state, hidden_states([row], model)[0], atol=1e-4) and len(state) == len(row)
    assert [len(part) for part in logits(rows, model, 3)] == [3, 2, 1, 3]
    assert torch.equal(logits(rows, model, 3)[0], together[0][-3:])
