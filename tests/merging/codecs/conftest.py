"""The models that the tests of folders compress."""

import pytest
import torch

from merging.checkpoint import Checkpoint
from tests.merging.factories import write_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Checkpoint, Checkpoint]:
    """A base and an expert of it, in bfloat16."""
    base, experts = write_models(tmp_path_factory.mktemp("models"), experts=1, dtype=torch.bfloat16)
    (experts["add"] / "tokenizer.json").write_text('{"of": "the expert"}')
    (experts["add"] / "additional_chat_templates").mkdir()
    (experts["add"] / "additional_chat_templates" / "tool.jinja").write_text("tool")
    return Checkpoint(base), Checkpoint(experts["add"])
