"""One question to an endpoint, with an end to the waiting: a controller has other studies to lead."""

import threading
from collections.abc import Mapping, Sequence
from queue import Empty, SimpleQueue

from evaluation.evaluators.endpoint import ChatEndpoint, JudgeAway, JudgeRefuses
from search.strategies.proposer.settings import Settings

SECONDS = 20.0


class NoAnswer(Exception):
    """There is no answer; the message says why, and never holds a key."""


def ask(settings: Settings, messages: Sequence[Mapping[str, str]], seconds: float = SECONDS) -> str:
    """The model's answer. It is asked once; whoever gets none decides when to ask again.

    Raises:
        NoAnswer: it cannot be had within that many seconds, whatever the endpoint does.
    """
    answers: SimpleQueue[str | Exception] = SimpleQueue()
    try:
        where = (settings.url, settings.model, settings.key_variable)
        endpoint = ChatEndpoint(*where, seconds, attempts=1, temperature=settings.temperature)
    except JudgeAway as error:
        raise NoAnswer(str(error)) from error

    def wait() -> None:
        try:
            answers.put(endpoint.ask(messages))
        except Exception as error:
            answers.put(error)

    threading.Thread(target=wait, daemon=True).start()
    try:
        found = answers.get(timeout=seconds)
    except Empty:
        raise NoAnswer(f"{settings.url} gave no answer within {seconds:g} seconds") from None
    finally:
        endpoint.close()
    if isinstance(found, JudgeAway | JudgeRefuses):
        raise NoAnswer(str(found)) from found
    if isinstance(found, Exception):
        raise found
    return found
