"""An OpenAI-compatible chat endpoint: asked patiently, from several threads, its key never shown."""

import json
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import httpx

from evaluation.spec import EvaluationSpec
from merging.errors import InvalidStudy, MergesearchError

_ATTEMPTS = 6
_LONGEST_PAUSE = 60.0  # seconds, whatever the endpoint asks for
_HERE = ("localhost", "127.0.0.1", "::1")
_SHOWN = 200  # most characters of an endpoint's complaint that are repeated
_MOST_BYTES = 1 << 22  # of an answer: a judge says a few hundred words


class JudgeAway(ConnectionError):
    """The judge cannot be had now; another attempt may succeed."""


class JudgeRefuses(MergesearchError):
    """The judge answers, but not to such a request: trying again gives the same."""


class ChatEndpoint:
    """One model at one endpoint.

    Args:
        url: the API's base URL; `/chat/completions` is below it. Redirects are not followed: they could lead to where
            nobody allowed requests to go.
        key_variable: the environment variable that holds the key; None: no key is sent.
        seconds: how long an answer may take in all.
        pause: seconds before the second attempt; doubled with each further one.
        attempts: how often it is asked, where another attempt may succeed.
        temperature: of its answers.

    Raises:
        JudgeAway: the variable is not set here, or holds no key.
    """

    def __init__(
        self,
        url: str,
        model: str,
        key_variable: str | None,
        seconds: float = 120.0,
        pause: float = 1.0,
        *,
        attempts: int = _ATTEMPTS,
        temperature: float = 0.0,
    ) -> None:
        self.url, self._model, self._seconds, self._pause = url, model, seconds, pause
        self._attempts, self._temperature = attempts, temperature
        self._key = _key(url, key_variable)
        self._over, self._lock, self._users = threading.Event(), threading.Lock(), 1
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx.Client(
            timeout=httpx.Timeout(seconds, connect=min(seconds, 10.0)),
            headers=headers,
            follow_redirects=False,
            trust_env=httpx.URL(url).host not in _HERE,  # what is on this machine is not asked for through a proxy
        )

    def __enter__(self) -> "ChatEndpoint":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End it: threads that wait for another attempt give up at once, those whose request runs after it."""
        self._over.set()
        self._leave()

    def ask(self, messages: Sequence[Mapping[str, str]]) -> str:
        """The model's answer, at temperature 0 as deterministic as it can be had; may be called from several threads.

        Args:
            messages: of the chat, each with `role` and `content`.

        Raises:
            JudgeAway: after several attempts there is no answer.
            JudgeRefuses: the answer is of no use.
        """
        with self._lock:
            if self._over.is_set():
                raise JudgeAway(f"the judge at {self.url} is not asked any more")
            self._users += 1
        try:
            return self._asked({"model": self._model, "messages": list(messages), "temperature": self._temperature})
        finally:
            self._leave()

    def _leave(self) -> None:
        """The last who uses the client closes it: closed under a running request, it would leave a socket behind."""
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._client.close()

    def _asked(self, body: Mapping[str, Any]) -> str:
        why = ""
        for attempt in range(self._attempts):
            answer, why, asked = self._attempt(body)
            if answer is not None:
                return self._text(*answer)
            pause = self._pause * 2**attempt * random.uniform(0.75, 1.25)  # many threads must not come back at once
            if attempt + 1 == self._attempts or self._over.wait(min(max(pause, asked), _LONGEST_PAUSE)):
                break
        raise JudgeAway(f"the judge at {self.url} cannot be had ({why})")

    def _attempt(self, body: Mapping[str, Any]) -> tuple[tuple[int, bytes] | None, str, float]:
        """-> status and content, if they are to go by; else why not, and the seconds that the endpoint asks to wait."""
        try:
            with self._client.stream("POST", f"{self.url.rstrip('/')}/chat/completions", json=body) as response:
                status = response.status_code
                if status in (408, 409, 429) or status >= 500:
                    return None, f"status {status}", _seconds(response.headers.get("retry-after"))
                content = self._content(response)
        except httpx.RequestError as error:
            return None, type(error).__name__, 0.0
        return (None, "it takes too long", 0.0) if content is None else ((status, content), "", 0.0)

    def _content(self, response: httpx.Response) -> bytes | None:
        """The response's body; None: it does not come to its end. httpx bounds the time of each piece alone."""
        content, until = bytearray(), time.monotonic() + self._seconds
        for piece in response.iter_bytes():
            content += piece
            if len(content) > _MOST_BYTES:
                raise JudgeRefuses(f"the judge at {self.url} answers with more than {_MOST_BYTES >> 20} MiB")
            if time.monotonic() > until or self._over.is_set():
                return None
        return bytes(content)

    def _text(self, status: int, answer: bytes) -> str:
        if status != 200:
            said = answer.decode("utf-8", "replace")
            said = said if self._key is None else said.replace(self._key, "***")  # some repeat it
            said = " ".join(said.split())[:_SHOWN]
            raise JudgeRefuses(f"the judge at {self.url} answers with status {status} ({said})")
        try:
            content = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise JudgeRefuses(f"the judge at {self.url} does not answer as an OpenAI-compatible one") from error
        return content if isinstance(content, str) else ""


def require_keys(spec: EvaluationSpec) -> None:
    """See that this machine has the keys of the study's judges.

    Raises:
        InvalidStudy: a variable is not set.
    """
    for index, task in enumerate(spec.tasks):
        name = task.api_key_env
        if name is not None and not os.environ.get(name, "").strip():
            key, remedy = f"evaluation.tasks[{index}].api_key_env", "export it, with the judge's key in it"
            raise InvalidStudy(key, name, "is not set in the environment", remedy)


def _key(url: str, variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    if not key:
        raise JudgeAway(f"the judge at {url} cannot be asked: the environment variable {variable} is not set here")
    if not (key.isascii() and key.isprintable()):  # as a header, it would be shown by the error
        raise JudgeAway(f"the judge at {url} cannot be asked: the environment variable {variable} holds no key")
    return key


def _seconds(retry_after: str | None) -> float:
    try:
        return max(0.0, float(retry_after or 0))
    except ValueError:  # a date: the own pauses are long enough
        return 0.0
