"""What every evaluator is: documents, and an item for each that a model's answer earns. No torch here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from evaluation.statistics import Aggregation

Render = Callable[[list[dict[str, str]]], str]
"""The turns of a chat as one prompt that ends where the model is to answer (`Chat.render`)."""


class LanguageModel(Protocol):
    """What an evaluator may ask of the live model behind lm-eval's interface (`evaluation.lm`)."""

    @property
    def max_length(self) -> int:
        """The context window in tokens."""
        ...

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text that has nothing before it."""
        ...

    def tok_encode(self, string: str) -> list[int]:
        """The token ids of a text, as lm-eval makes them."""
        ...

    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """The log-likelihood of each request's text, in nats."""
        ...

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The answer to each request's prompt."""
        ...


@dataclass(frozen=True)
class Subject:
    """The candidate that is evaluated, live on its device.

    Attributes:
        model, tokenizer: as transformers loads them; the model is in evaluation mode.
        beat: told how many of the asked documents are done; it may raise to end the evaluation, and so may a forward
            pass of the model that is watched. An evaluator that runs a user's code cannot tell such an error from
            the code's own: who watches must know what it raised itself, and heed that first.
    """

    lm: LanguageModel
    model: Any
    tokenizer: Any
    device: str
    beat: Callable[[int], None]


class Evaluator(Protocol):
    """One task that is not lm-eval's."""

    @property
    def name(self) -> str:
        """As the study names the task."""
        ...

    @property
    def documents(self) -> Sequence[Any]:
        """All of them; the position is the `doc_id`. Their content decides which are held out."""
        ...

    @property
    def shown_metric(self) -> str:
        """The name of what is measured."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """Its direction."""
        ...

    @property
    def aggregation(self) -> Aggregation:
        """Makes the task's value of the items."""
        ...

    @property
    def config(self) -> Mapping[str, Any]:
        """Everything but the documents that decides scores, as plain JSON; part of the task's digest."""
        ...

    def stderr(self, items: Sequence[Any], iterations: int) -> float | None:
        """The standard error of the value; None where there is none.

        Args:
            iterations: draws where it is bootstrapped; 0: none there.
        """
        ...

    def answer(self, doc_ids: Sequence[int], subject: Subject) -> list[Any]:
        """Ask the subject.

        Returns:
            One item a document in the order of `doc_ids`, as JSON gives it back.

        Raises:
            MergesearchError: it cannot be evaluated; trying again gives the same.
            OSError: something outside of the candidate is away (a judge); another attempt may succeed.
            MemoryError, torch.OutOfMemoryError: memory is short.
        """
        ...
