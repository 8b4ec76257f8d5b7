"""Prompts as a conversation: what `lm_eval --apply_chat_template` makes of them, without loading a model."""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from merging.errors import InvalidModel, InvalidStudy
from merging.vocabulary.chat import templates

DATE = datetime(2024, 7, 26)
"""Today, for templates that ask for it: prompts of one study may not change overnight. Llama's templates say this
date where they are not told another."""

_CLOCK = re.compile(r"""strftime_now\(\s*(['"])(.*?)\1\s*\)""")


class Chat:
    """One tokenizer's chat template.

    Attributes:
        template: its text, with today's date fixed.
        name: the tokenizer's name, as lm-eval has it.
        multiturn: whether few-shot examples are turns of the conversation; else all is one turn of the user's.
    """

    def __init__(self, tokenizer: Any, multiturn: bool) -> None:
        """Args: tokenizer: Hugging Face's, of its own: its template is fixed. Raises ValueError: it has none."""
        template: str = tokenizer.get_chat_template()
        self.template = tokenizer.chat_template = _CLOCK.sub(lambda said: repr(DATE.strftime(said[2])), template)
        self.name = str(tokenizer.name_or_path).replace("/", "__")
        self.multiturn = multiturn
        self._own = SimpleNamespace(tokenizer=tokenizer, chat_template_args={})

    def render(self, history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """A conversation as one text, exactly as lm-eval renders it."""
        from lm_eval.models.huggingface import HFLM  # seconds to import

        # its method needs no more of a model than this
        text: str = HFLM.apply_chat_template(self._own, history, add_generation_prompt)
        return text


def template_folder(base: Path, experts: Mapping[str, Path], tokenizer: str) -> Path:
    """The folder whose chat template the merges have.

    Args:
        tokenizer: whose vocabulary they have: `base`, `union`, or an expert's name.

    Raises:
        InvalidModel: a tokenizer_config.json cannot be read.
    """
    if tokenizer in experts:
        return experts[tokenizer]
    # a union without a template of the base's takes the one its experts agree in
    candidates = [base, *(experts[name] for name in sorted(experts))] if tokenizer == "union" else [base]
    return next((folder for folder in candidates if templates(folder, "models.tokenizer").texts), base)


def open_chat(tokenizer: Path, multiturn: bool) -> Chat:
    """The chat template in a model's folder.

    Raises:
        InvalidStudy: there is none.
        InvalidModel: the folder holds no tokenizer.
    """
    from transformers import AutoTokenizer  # seconds to import

    try:
        own = AutoTokenizer.from_pretrained(tokenizer, use_fast=True, trust_remote_code=False, local_files_only=True)
    except (OSError, ValueError) as error:
        remedy = "give a folder that AutoTokenizer can load"
        raise InvalidModel("models.base", str(tokenizer), f"has no usable tokenizer ({error})", remedy) from error
    try:
        return Chat(own, multiturn)
    except ValueError as error:
        raise InvalidStudy(
            "evaluation.chat_template",
            True,
            f"needs a chat template, and {tokenizer} has none ({error})",
            "leave it out, or put the template the model was trained with into its folder (chat_template.jinja)",
        ) from error
