"""The tiny model as an evaluator meets it."""

from collections.abc import Callable
from typing import Any

import pytest

from evaluation.evaluators.contract import Subject
from tests.evaluation.conftest import BATCH


@pytest.fixture
def subject_of(live: tuple[Any, Any]) -> Callable[..., Subject]:
    """A subject around the live model; `beat` as given, else nobody listens."""
    from evaluation.lm.resident import ResidentLM

    def make(beat: Callable[[int], None] = lambda done: None) -> Subject:
        model, tokenizer = live
        return Subject(ResidentLM(model, tokenizer, BATCH), model, tokenizer, "cpu", beat)

    return make
