"""What the strategy `proposer` is told by a study. No torch here."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.spec import require_endpoint
from merging.errors import InvalidStudy

NAME = "proposer"


@dataclass(frozen=True)
class Settings:
    """Whom to ask, and how.

    Attributes:
        key_variable: the environment variable that holds the key; None: no key is sent.
        batch: proposals asked for in one request.
        history: of the best and of the latest trials, so many are shown.
    """

    url: str = ""
    model: str = ""
    key_variable: str | None = None
    batch: int = 4
    history: int = 20
    temperature: float = 0.7

    @staticmethod
    def of(options: Mapping[str, Any]) -> "Settings":
        """From the strategy's options; absent ones are at their defaults."""
        plain = ("url", "model", "batch", "history", "temperature")
        given = {name: options[name] for name in plain if name in options}
        return Settings(key_variable=options.get("api_key_env") or None, **given)


def require_settings(options: Mapping[str, Any]) -> None:
    """See that an endpoint and a model are named, and nothing that is a secret.

    Raises:
        InvalidStudy: they are not.
    """
    for name, example in (("url", "https://models.example/v1"), ("model", "the name that the endpoint knows it by")):
        if not str(options[name]).strip():
            raise InvalidStudy(f"search.options.{name}", None, "is missing", f"add it: {example}")
    require_endpoint("search.options", str(options["url"]), options["api_key_env"] or None)


def require_key(strategy: str, options: Mapping[str, Any]) -> None:
    """See that this machine has the key of a study's proposer.

    Raises:
        InvalidStudy: its variable is not set.
    """
    variable = options.get("api_key_env") if strategy == NAME else None
    if variable and not os.environ.get(str(variable), "").strip():
        remedy = "export it, with the endpoint's key in it"
        raise InvalidStudy("search.options.api_key_env", variable, "is not set in the environment", remedy)
