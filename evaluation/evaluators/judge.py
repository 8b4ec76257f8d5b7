"""Answers that another model judges: the candidate answers prompts, an OpenAI-compatible endpoint rates them.

Importing it takes a second (lm-eval), so import it where it is used.
"""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from hashlib import blake2b
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance

from evaluation.errors import TaskBroken
from evaluation.evaluators import verdict
from evaluation.evaluators.contract import Render, Subject
from evaluation.evaluators.documents import read_rows
from evaluation.evaluators.endpoint import ChatEndpoint, JudgeRefuses
from evaluation.evaluators.measures import aggregation, mean_error
from evaluation.spec import JUDGE_SCALE, TaskSpec
from evaluation.split import canonical
from merging.errors import InvalidStudy

_AT_ONCE = 8  # requests that the judge has at the same time
_LOOK = 0.5  # seconds; so often it is seen whether the verdicts are still wanted
_MAX_TOKENS = 256
_MOST_KEPT = 100_000  # verdicts in memory; candidates often give the same answer


class Judge:
    """How well a judge likes the candidate's answers, from 0 to 1. Satisfies `Evaluator`; an item is a number.

    One answer to one document is judged once by this object: equal candidates get equal numbers, for one price.
    """

    shown_metric = "judge"
    higher_is_better = True

    def __init__(
        self, spec: TaskSpec, documents: Sequence[dict[str, Any]], render: Render | None = None, pause: float = 1.0
    ) -> None:
        """As `load_judge`.

        Args:
            documents: each with its `prompt`, and perhaps a `reference`.
            pause: seconds before the judge is asked again that did not answer; doubled each time.
        """
        self.name, self.documents, self._spec, self._pause = spec.name, documents, spec, pause
        self.aggregation = aggregation("mean")
        self._scale = spec.scale or JUDGE_SCALE
        self._tokens = spec.max_tokens or _MAX_TOKENS
        prompts = [d["prompt"] if render is None else render(_turn(d["prompt"])) for d in documents]
        told = blake2b(canonical([prompts, verdict.messages("", self._scale, {"prompt": ""}, "")]), digest_size=16)
        kept = {k: getattr(spec, k) for k in ("kind", "url", "model", "rubric")}
        self.config = kept | {"scale": list(self._scale), "max_tokens": self._tokens, "told": told.hexdigest()}
        generation = {"until": [], "do_sample": False, "max_gen_toks": self._tokens}
        # one object a document for good, so that what the scorer prepares for it is found again
        self._requests = [
            Instance("generate_until", documents[i], (prompt, generation), 0, (self.name, i, 1))
            for i, prompt in enumerate(prompts)
        ]
        self._judged: dict[tuple[int, str], float] = {}

    def stderr(self, items: Sequence[Any], iterations: int) -> float | None:
        """The standard error of the mean."""
        return mean_error(items)

    def answer(self, doc_ids: Sequence[int], subject: Subject) -> list[Any]:
        """As `Evaluator.answer`. A judge that does not answer is JudgeAway, an OSError."""
        if self._tokens >= subject.lm.max_length:
            room = f"max_tokens of {self._tokens} leaves no room in a context of {subject.lm.max_length} tokens"
            raise TaskBroken(self.name, room)
        texts = subject.lm.generate_until([self._requests[i] for i in doc_ids], disable_tqdm=True)
        asked = list(zip(doc_ids, texts, strict=True))
        new = [pair for pair in dict.fromkeys(asked) if pair not in self._judged]
        if len(self._judged) > _MOST_KEPT:
            self._judged = {pair: self._judged[pair] for pair in asked if pair in self._judged}
        try:
            self._judge(new, len(asked) - len(new), subject)
        except JudgeRefuses as error:
            raise TaskBroken(self.name, str(error)) from error
        return [self._judged[pair] for pair in asked]

    def _judge(self, pairs: Sequence[tuple[int, str]], before: int, subject: Subject) -> None:
        """Have answers judged, several at once; the first that cannot be ends it all."""
        if not pairs:
            return subject.beat(before)
        url, model = str(self._spec.url), str(self._spec.model)
        pool = ThreadPoolExecutor(min(_AT_ONCE, len(pairs)), thread_name_prefix="judge")
        try:
            with ChatEndpoint(url, model, self._spec.api_key_env, pause=self._pause) as endpoint:
                waiting = {pool.submit(self._verdict, endpoint, *pair): pair for pair in pairs}
                done, left = before, set(waiting)
                while left:
                    finished, left = wait(left, _LOOK, FIRST_COMPLETED)
                    for future in finished:
                        self._judged[waiting[future]] = future.result()
                    done += len(finished)
                    subject.beat(done)
        finally:
            # requests that run cannot be called back; nobody waits for them
            pool.shutdown(wait=False, cancel_futures=True)
        return None

    def _verdict(self, endpoint: ChatEndpoint, doc_id: int, answer: str) -> float:
        """One answer's number. Asked once more if the judge names none."""
        chat = verdict.messages(str(self._spec.rubric), self._scale, self.documents[doc_id], answer)
        for _ in range(2):
            try:
                said = endpoint.ask(chat)
            except JudgeRefuses as error:
                raise JudgeRefuses(f"{error}, for document {doc_id}") from error
            number = verdict.read(said, self._scale)
            if number is not None:
                return number
            chat = [*chat, {"role": "assistant", "content": said}, verdict.once_more(self._scale)]
        low, high = self._scale
        shown = " ".join(said.split())[:100]
        raise JudgeRefuses(
            f"the judge at {endpoint.url} names no score from {low:.15g} to {high:.15g} "
            f"for document {doc_id}: {shown!r}"
        )


def load_judge(spec: TaskSpec, root: Path, key: str, render: Render | None) -> Judge:
    """The evaluator of a task of kind `judge`.

    Args:
        render: makes a prompt of a chat by the model's chat template; None: prompts stay as they are.

    Raises:
        InvalidStudy: the file of prompts cannot be used.
    """
    documents = read_rows(str(spec.path), root, f"{key}.path", "prompt")
    for document in documents:
        if not isinstance(document.get("reference", ""), str | None):
            problem = f"has a reference that is no text ({document['reference']!r})"
            raise InvalidStudy(f"{key}.path", spec.path, problem, "write it as text")
    return Judge(spec, documents, render)


def _turn(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]
