"""Experts of which one can do what the tasks ask and others cannot, and what measures them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation.artefacts.contract import Joint, Subject, alone
from evaluation.artefacts.texts import Text, read_texts
from evaluation.artefacts.workshop import Workshop
from evaluation.live import live_tensors, load_live
from evaluation.lm.budget import Budget
from evaluation.lm.resident import ResidentLM
from evaluation.suite import Suite
from merging.artefacts.request import Request, requests
from merging.models import ModelSet
from merging.recipe import GroupMerge, Recipe
from merging.resident import ResidentModel
from tests.evaluation.conftest import KEY, Tiny

ROOM = 1 << 30


def planted(root: Path, tiny: Tiny, change: Callable[[str, dict[str, Tensor]], None], *experts: str) -> ModelSet:
    """The tiny model's weights, changed for the base and for each expert, as checkpoints."""
    paths = {}
    for name in ("base", *experts):
        model, tokenizer = load_live(tiny.model, "cpu", "float32")
        with torch.no_grad():
            change(name, live_tensors(model, model.state_dict()))
        model.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
        paths[name] = root / name
    return ModelSet.open(paths.pop("base"), paths)


def noise(tensor: Tensor, seed: int, size: float) -> None:
    """Adds noise of that size to a tensor."""
    generator = torch.Generator().manual_seed(seed)
    tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=size)


@dataclass
class Bench:
    """A live model with all that measures."""

    models: ModelSet
    suite: Suite

    def __post_init__(self) -> None:
        self.live, self.tokenizer = load_live(self.models.base.path, "cpu", "float32")
        self.tensors = live_tensors(self.live, self.models.base.names)
        self.resident = ResidentModel(self.models, self.tensors)
        self.workshop = Workshop(self.models, self.resident, self.live, self.tokenizer, self.tensors)

    def recipe(self, method: str, **parameters: Any) -> Recipe:
        """The method over all layers, all experts alike."""
        weights = {} if method == "graft_trained" else dict.fromkeys(self.models.names, 1.0)
        whole = (0, self.models.layout.layer_count)
        group = GroupMerge(layers=whole, method=method, parameters=parameters, weights=weights)
        return alone(self.models, self.models.names[0]).model_copy(
            update={"groups": (group,), "suite": self.suite.tuning_digest}
        )

    def request(self, method: str, **parameters: Any) -> Request:
        """The last artefact that the method reads."""
        return requests(self.recipe(method, **parameters), self.models)[-1]

    def texts(self, documents: int = 40) -> list[Text]:
        """The search documents."""
        lm = ResidentLM(self.live, self.tokenizer, None)
        return read_texts(self.suite, documents, lm.pair, lm.max_length)

    def subject(self, texts: list[Text], room: int = ROOM, beat: Callable[[], None] = lambda: None) -> Subject:
        """All models together on these texts."""
        recipe = self.recipe("linear").model_copy(update={"suite": ""})
        joint = Joint(self.models, recipe, self.resident, dict.fromkeys(self.models.names, texts))
        budget = Budget(self.live, torch.device("cpu"), None)
        return Subject(self.live, self.tensors, texts, budget, room, beat, joint)

    def untouched(self) -> bool:
        """Whether the live model has no gradients and nothing to follow."""
        return not any(p.requires_grad or p.grad is not None for p in self.live.parameters())


def a_suite(tiny: Tiny, *tasks: str) -> Suite:
    """The tasks with 40 search and held documents each."""
    return Suite.load(tiny.spec(*tasks, documents=40), tiny.root, KEY)


def contexts(texts: Sequence[Text]) -> list[Text]:
    """The same contexts with other answers, as long as theirs: equal batches have equal last digits."""
    return [Text(text.context, [7] * len(text.answer)) for text in texts]
