"""How well experts explain answers: as the scorer says, and whose documents follow from it."""

from typing import Any

import pytest
import torch

from evaluation.artefacts.likelihoods import ANSWERS, measure_likelihoods, own
from evaluation.artefacts.texts import Text, log_likelihoods, read_texts
from evaluation.calibration import calibration
from evaluation.lm.resident import ResidentLM
from evaluation.suite import Suite
from tests.evaluation.artefacts.subjects import llama, request, some_texts, subject_of
from tests.evaluation.lm.families import request as asked


def test_they_are_the_scorer_s(suite: Suite, live: tuple[Any, Any]) -> None:
    lm = ResidentLM(*live, None)
    examples = [each for each in calibration(suite).examples if len(each.continuation.split()) < 40]
    texts = [text for text in read_texts(suite, 1 << 20, lm.pair, lm.max_length) if len(text.answer) < 40]
    wanted = lm.loglikelihood([asked(each.prompt, each.continuation) for each in examples])
    found = dict(measure_likelihoods(subject_of(live[0], texts), request("likelihoods")).values())
    assert found[ANSWERS].tolist() == pytest.approx([value for value, _ in wanted], abs=1e-4)
    assert len(texts) > 8 and len({round(value) for value in found[ANSWERS].tolist()}) > 3


def test_padding_and_a_shortage_of_memory_change_nothing() -> None:
    model, texts = llama(), some_texts()
    with torch.no_grad():
        alone = torch.stack([log_likelihoods(model, [text])[0] for text in texts])
    subject = subject_of(model, texts)
    measurement = measure_likelihoods(subject, request("likelihoods"))
    assert measurement.shapes == [(ANSWERS, torch.float32, (len(texts),))]
    rows: list[int] = []

    def look(module: Any, args: Any, output: torch.Tensor) -> None:
        rows.append(len(output))
        if len(output) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")

    ((_, whole),) = measurement.values()
    handle = model.lm_head.register_forward_hook(look)
    ((_, parts),) = measure_likelihoods(subject, request("likelihoods")).values()
    handle.remove()
    assert rows[0] == len(texts) and max(rows[-3:]) <= 2
    torch.testing.assert_close(whole, alone, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(parts, alone, rtol=1e-5, atol=1e-5)


def test_each_document_is_of_who_explains_it_best() -> None:
    texts = [Text([i], [i]) for i in range(5)]
    answers = [torch.tensor(row) for row in ([-1.0, -4.0, -2.0, -9.0, -1.0], [-3.0, -2.0, -2.0, -8.0, -1.0])]
    assert own(texts, answers, 0) == [texts[0], texts[2], texts[4]]  # of equal ones, the first has it
    assert own(texts, answers, 1) == [texts[1], texts[3]]


def test_who_explains_nothing_best_has_them_all() -> None:
    texts = [Text([i], [i]) for i in range(2)]
    answers = [torch.tensor([-1.0, -1.0]), torch.tensor([-2.0, -2.0]), torch.tensor([-1.0, -1.0])]
    assert own(texts, answers, 0) == texts
    assert own(texts, answers, 1) == texts and own(texts, answers, 2) == texts
