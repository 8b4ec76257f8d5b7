"""lm-eval's vLLM model whose weights change between calls: one engine in this process, many candidates.

Prompts and windows are those of the stock `lm_eval --model vllm`. Other than stock, it takes its weights from a live
model, calls back before every step of the engine and counts what it computes. Answers are those of lm-eval's Hugging
Face model: greedy where the task does not say that it samples (stock 0.4.13 leaves vLLM its temperature of 1 there),
and decoded by themselves, without the space that follows the prompt.

Importing it loads vLLM, which reads the environment: only `start.py` does.
"""

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lm_eval.models.vllm_causallms import VLLM
from vllm import SamplingParams, TokensPrompt

from evaluation.errors import EngineLost
from evaluation.passes import watched_passes


class VllmLM(VLLM):
    """One engine, with the methods that `ResidentLM` has.

    Args:
        live: the candidate as a Hugging Face model; evaluators may ask it beside the engine.
        tensors: its tensors by checkpoint name; vLLM's own loader finds their places.
        head: weights that the engine is given too if its model has them by this name.
        settings: those of lm-eval's `VLLM`, and the engine's.

    Attributes:
        tokens: positions computed since the last `watched` began, by the engine and by `live`.
        answered: prompts the engine answered since then.
    """

    model: Any

    def __init__(
        self, live: Any, tensors: Mapping[str, torch.Tensor], head: Mapping[str, torch.Tensor], **settings: Any
    ) -> None:
        super().__init__(**settings)
        self._llm = self.model
        self.tokens = 0
        self.answered = 0
        (known,) = self._llm.apply_model(lambda model: dict(model.named_parameters()).keys())
        self._live, self._tensors = live, {**tensors, **{name: head[name] for name in head if name in known}}
        self._heartbeat: Callable[[], None] = _nobody
        self._names = map(str, itertools.count())

    @contextlib.contextmanager
    def watched(self, heartbeat: Callable[[], None]) -> Iterator[None]:
        """Count from zero, and call `heartbeat` before every step; what it raises ends the call."""
        self.tokens = self.answered = 0
        self._heartbeat = heartbeat

        def before(positions: int) -> None:
            heartbeat()
            self.tokens += positions

        try:
            with watched_passes(self._live, before):
                yield
        finally:
            self._heartbeat = _nobody

    def take(self) -> None:
        """Make the live model's weights the engine's, and forget what was computed with others.

        All are handed over, also those that did not change: vLLM fuses some, and fills a fused one only as a whole.

        Raises:
            EngineLost: vLLM failed; nobody knows what the engine holds.
        """
        with _fatal():
            weights = ((name, tensor.detach()) for name, tensor in self._tensors.items())
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
            if not self._llm.reset_prefix_cache():
                raise RuntimeError("the prefix cache is in use")

    def logprobs(self, ids: Sequence[int]) -> list[float]:
        """The log-probability of each token but the first after those before it, in nats: [n] gives [n - 1]."""
        (output,) = self._model_generate([list(ids)])
        return [said[token].logprob for token, said in zip(ids[1:], output.prompt_logprobs[1:], strict=True)]

    def close(self) -> None:
        """Give the engine's memory back. Nothing can be asked any more."""
        from vllm.distributed import cleanup_dist_env_and_memory

        self._llm.llm_engine.engine_core.shutdown()
        self._llm = self.model = None
        cleanup_dist_env_and_memory()

    @staticmethod
    def modify_gen_kwargs(
        gen_kwargs: dict[str, Any], eos: Any = None, default_max_gen_toks: int = 256
    ) -> tuple[dict[str, Any], list[str], int]:
        settings, until, most = VLLM.modify_gen_kwargs(gen_kwargs, eos, default_max_gen_toks)
        if not gen_kwargs.get("do_sample"):
            settings.setdefault("temperature", 0.0)
        return settings, until, most

    def _loglikelihood_tokens(self, requests: Any, disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return super()._loglikelihood_tokens(requests, disable_tqdm=True)  # stock draws a bar for rolling texts

    def _model_generate(self, requests: Any, generate: bool = False, sampling_params: Any = None) -> list[Any]:
        if not generate or sampling_params is None:
            sampling_params = SamplingParams(temperature=0, prompt_logprobs=1, max_tokens=1, detokenize=False)
        each = sampling_params if isinstance(sampling_params, list) else [sampling_params] * len(requests)
        engine, names = self._llm.llm_engine, [next(self._names) for _ in requests]
        with self._all_or_none(names):
            with _fatal():
                for name, ids, parameters in zip(names, requests, each, strict=True):
                    engine.add_request(name, TokensPrompt(prompt_token_ids=ids), parameters)
            outputs: dict[str, Any] = {}
            while engine.has_unfinished_requests():
                self._heartbeat()
                with _fatal():
                    finished = [output for output in engine.step() if output.finished]
                for output in finished:
                    outputs[output.request_id] = output
                    made = sum(len(completion.token_ids) for completion in output.outputs)
                    self.tokens += len(output.prompt_token_ids) + made - (output.num_cached_tokens or 0)
                self.answered += len(finished)
        if generate:
            for output in outputs.values():
                for completion in output.outputs:
                    completion.text = self.tokenizer.decode(completion.token_ids, skip_special_tokens=True)
        return [outputs[name] for name in names]

    @contextlib.contextmanager
    def _all_or_none(self, names: Sequence[str]) -> Iterator[None]:
        """No request stays in the engine when its call has ended."""
        try:
            yield
        except EngineLost:
            raise
        except BaseException:
            self._llm.llm_engine.abort_request(list(names))
            raise


@contextlib.contextmanager
def _fatal() -> Iterator[None]:
    """Whatever vLLM raises leaves its engine in an unknown state."""
    try:
        yield
    except Exception as error:
        raise EngineLost(f"{type(error).__name__}: {error}") from error


def _nobody() -> None:
    """Nobody watches."""
