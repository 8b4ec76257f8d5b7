"""The real engine: weights handed over, scores beside those of transformers. Where vLLM is installed alone.

It takes a minute to start, so one serves all tests.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from lm_eval.api.instance import Instance
from safetensors.torch import load_file

from evaluation.live import live_tensors, load_live
from evaluation.scorer import Scorer
from evaluation.suite import Suite
from tests.evaluation.conftest import KEY, TYPICAL, Tiny
from tests.evaluation.vllm.conftest import assert_near

pytest.importorskip("vllm", reason="vLLM is not installed", exc_type=ImportError)
pytestmark = pytest.mark.filterwarnings("ignore")  # those of vLLM

NEAR = 1e-4  # nats a token, in float32


class Beside:
    """The live model, its tensors, its tokenizer and the engine beside it."""

    def __init__(self, folder: Path) -> None:
        from evaluation.vllm.start import start

        self.live, self.tokenizer = load_live(folder, "cpu", "float32")
        self.tensors = live_tensors(self.live, load_file(folder / "model.safetensors"))
        self.lm = start(folder, self.live, self.tensors, self.tokenizer, "cpu")

    def become(self, folder: Path) -> None:
        """Make live model and engine another model."""
        for name, tensor in load_file(folder / "model.safetensors").items():
            self.tensors[name].copy_(tensor)
        self.lm.take()

    def distance(self) -> float:
        """How far both are apart."""
        from evaluation.vllm.start import distance

        return distance(self.lm, self.live, self.tokenizer)


@pytest.fixture(scope="module")
def beside(served: Path) -> Iterator[Beside]:
    """One engine for the module."""
    made = Beside(served / "base")
    yield made
    made.lm.close()


def test_the_engine_holds_what_it_was_given_and_nothing_else(beside: Beside, served: Path) -> None:
    assert beside.distance() < NEAR
    for tensor in beside.tensors.values():
        tensor.mul_(1.5)
    assert beside.distance() > 100 * NEAR  # it has a copy
    for name in ("a", "b", "a", "base"):
        beside.become(served / name)
        assert beside.distance() < NEAR


def test_every_kind_of_task_has_the_scores_of_transformers(beside: Beside, served: Path, tiny: Tiny) -> None:
    suite = Suite.load(tiny.spec(*TYPICAL, "tiny_likely", documents=30), tiny.root, KEY)
    beside.become(served / "a")
    parts = suite, beside.live, beside.tokenizer, "cpu", 8
    (own, own_tokens), (stock, _) = (Scorer(*parts, lm=lm).score(suite.wanted("search")) for lm in (beside.lm, None))
    assert_near(own, stock)
    assert own_tokens > sum(len(score.documents) for score in own)
    assert Scorer(*parts, lm=beside.lm).score(suite.wanted("search"))[0] == own  # bit for bit


def test_tasks_that_sample_give_the_same_model_the_same_answers(beside: Beside, tiny: Tiny) -> None:
    suite = Suite.load(tiny.spec("tiny_sampled"), tiny.root, KEY)
    scorer = Scorer(suite, beside.live, beside.tokenizer, "cpu", 8, lm=beside.lm)
    first, _ = scorer.score(suite.wanted("search"))
    assert scorer.score(suite.wanted("search"))[0] == first


def test_what_the_heartbeat_raises_ends_the_call_and_the_engine_goes_on(beside: Beside) -> None:
    requests = [Instance("generate_until", {}, (f"Q {w} A", {"until": [" ."], "max_gen_toks": 6}), 0) for w in "xyz"]
    beats: list[int] = []

    def stop() -> None:
        beats.append(beside.lm.answered)
        if len(beats) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), beside.lm.watched(stop):
        beside.lm.generate_until(requests, disable_tqdm=True)
    assert beats == [0, 0, 0]
    with beside.lm.watched(lambda: None):
        assert len(beside.lm.generate_until(requests, disable_tqdm=True)) == beside.lm.answered == 3
    beside.lm.take()  # no prompt is left that would hold on to the cache
    assert beside.distance() < NEAR
