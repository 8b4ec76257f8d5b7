"""How over-confident an expert is: the temperature at which its predictions are as sure as they are right.

The temperature is fitted on the tokens of right answers, each after the right ones before it, in one pass over the
texts (`confidence.py`). It is meant for the final norm: what that multiplies, the logits are multiplied by, and the
pass makes sure of it on the live model. An artefact has a tensor for each of the norm's, float32 [2]: the temperature
T, and what the model adds to the tensor before it multiplies (1 in the Gemma family, else 0). The tensor X with the
offset o is calibrated as (X + o) / T − o. Nothing here changes a model for good.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from evaluation.artefacts.confidence import BYTES, Predictions, join, predictions
from evaluation.artefacts.contract import Subject
from evaluation.artefacts.passes import read_all
from evaluation.artefacts.texts import Text
from merging.artefacts.request import Request
from merging.errors import InvalidModel
from merging.layers import NORM, layout
from merging.weightfiles import Shape

_OFFSETS = (0.0, 1.0)
_TRIED = 4.0  # by what the norm is divided to see whether the logits are
_CLOSE = 1e-3  # of the logits' size


@dataclass
class Temperature:
    """Fits the temperature of one expert: a `Measurement`.

    Args:
        norm: names of the final norm's tensors, the weight first.
    """

    subject: Subject
    norm: tuple[str, ...]
    rounds: int = 1
    _found: tuple[Predictions, float, float] | None = None

    @property
    def shapes(self) -> list[Shape]:
        """As `Measurement.shapes`."""
        return [(name, torch.float32, (2,)) for name in self.norm]

    @property
    def need(self) -> int:
        """Bytes of what is kept of each answer token, while it is joined."""
        return 2 * BYTES * sum(len(text.answer) for text in self.subject.texts)

    @torch.no_grad()
    def values(self) -> Iterator[tuple[str, Tensor]]:
        """As `Measurement.values`.

        Raises:
            InvalidModel: the logits are not divided by what the final norm is divided by.
        """
        offset = _offset(self.subject, self.norm)
        parts: list[Predictions] = []
        read_all(self.subject, lambda batch: parts.append(_read(self.subject.model, batch)), parts.clear)
        whole = join(parts)
        temperature = whole.best_temperature()
        self._found = whole, temperature, offset
        for name in self.norm:
            yield name, torch.tensor([temperature, offset if name == self.norm[0] else 0.0])

    def figures(self) -> Mapping[str, float | int]:
        """The temperature, how many answer tokens are predicted, and how well and how surely, at 1 and at it."""
        assert self._found is not None, "all values were taken"
        whole, temperature, offset = self._found
        found: dict[str, float | int] = {"temperature": temperature, "offset": offset, "tokens": len(whole)}
        found["accuracy"] = float(whole.correct.double().mean())
        for when, at in (("before", 1.0), ("after", temperature)):
            found[f"nll {when}"] = whole.loss(at)
            found[f"ece {when}"] = whole.error(at)
            found[f"confidence {when}"] = float(whole.confidence(at).mean())
        return found


def measure_temperature(subject: Subject, request: Request) -> Temperature:
    """The measurement of a `temperature` artefact.

    Raises:
        InvalidModel: scaling the model's final norm does not scale its logits.
    """
    config, head = subject.model.config, subject.model.get_output_embeddings()
    if getattr(config.get_text_config(), "final_logit_softcapping", None):
        raise _refused(subject, "caps its logits")
    if getattr(head, "bias", None) is not None:
        raise _refused(subject, "adds a bias to its logits")
    places = layout(subject.tensors, config.to_dict()).places
    norm = [n for n, t in subject.tensors.items() if places[n].layer == "after" and t.dim() == 1 and NORM.search(n)]
    modules = {name.rpartition(".")[0] for name in norm}
    weights = [name for name in norm if name.endswith("weight")]
    if len(modules) != 1 or len(weights) != 1:
        raise _refused(subject, f"has {len(modules) or 'no'} norms with weights between its layers and its head")
    return Temperature(subject, (*weights, *(name for name in norm if name not in weights)))


def _read(model: Any, texts: Sequence[Text]) -> Predictions:
    """The predictions of the answers' tokens, text by text; rows are padded on the right."""
    ids = torch.zeros(len(texts), max(map(len, texts)), dtype=torch.long)
    for i, text in enumerate(texts):
        ids[i, : len(text)] = torch.tensor([*text.context, *text.answer])
    ids = ids.to(model.device)
    logits = model(input_ids=ids[:, :-1], use_cache=False).logits
    asked = [slice(len(text.context), len(text)) for text in texts]
    before = [row[part.start - 1 : part.stop - 1] for row, part in zip(logits, asked, strict=True)]
    right = [row[part] for row, part in zip(ids, asked, strict=True)]
    return predictions(torch.cat(before), torch.cat(right))


def _offset(subject: Subject, norm: Sequence[str]) -> float:
    """What the model adds to the norm's weight: that under which a scaled norm scales the logits of one text."""
    text = min(subject.texts, key=len)
    ids = torch.tensor([[*text.context, *text.answer]], device=subject.model.device)
    tensors = [subject.tensors[name] for name in norm]
    whole = subject.model(input_ids=ids, use_cache=False).logits.double()
    errors = []
    for offset in _OFFSETS:
        with _divided(tensors, _TRIED, offset):
            subject.beat()
            part = subject.model(input_ids=ids, use_cache=False).logits.double()
        errors.append(float((_TRIED * part - whole).norm() / whole.norm()))
    least = min(errors)
    if not least <= max(_CLOSE, 4.0 * torch.finfo(tensors[0].dtype).eps):  # also where it is NaN
        raise _refused(subject, f"does not scale its logits with its final norm (off by {least:.1%})")
    return _OFFSETS[errors.index(least)]


@contextmanager
def _divided(tensors: Sequence[Tensor], by: float, offset: float) -> Iterator[None]:
    """Divides a live norm, weight first; afterwards it holds what it held."""
    copies = [tensor.clone() for tensor in tensors]
    try:
        for tensor, copy, added in zip(tensors, copies, [offset] + [0.0] * len(tensors), strict=False):
            tensor.copy_((copy.double() + added) / by - added)
        yield
    finally:
        for tensor, copy in zip(tensors, copies, strict=True):
            tensor.copy_(copy)


def _refused(subject: Subject, problem: str) -> InvalidModel:
    whole = f"{problem}: dividing its final norm by a temperature would not divide its logits by it"
    remedy = "leave out the method calibrated for such models"
    return InvalidModel("models.base", str(subject.model.config.model_type), whole, remedy)
