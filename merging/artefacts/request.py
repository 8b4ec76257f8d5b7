"""Which artefacts a recipe reads: what each is of, and the digest that names it. No torch here.

An artefact is a function of the models' contents, the texts it was measured on and a few settings; the digest covers
all of them, so nothing that has changed is ever taken for what it was.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

from merging.catalog import method
from merging.catalog.declare import ArtefactKind
from merging.recipe import Merge, Recipe

VERSION = 1
"""Raised whenever the same request would give other numbers."""


OF_RECIPE: frozenset[ArtefactKind] = frozenset({"propagated inputs", "merged inputs"})
"""Kinds that hang on all numbers of a recipe."""
JOINT: frozenset[ArtefactKind] = OF_RECIPE | {"coefficients", "common inputs"}
"""Kinds that are measured of base and experts together."""
OF_DELTAS: frozenset[ArtefactKind] = frozenset({"masks"})
"""Kinds that are measured of one expert, and of the base beside it."""


class Described(Protocol):
    """What identifies a set of models: `merging.models.ModelSet`."""

    @property
    def names(self) -> tuple[str, ...]:
        """The experts."""
        ...

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """Content fingerprints, under "base" and "expert:<name>"."""
        ...

    @property
    def companions_digest(self) -> str:
        """Digest of config and tokenizer."""
        ...


@dataclass(frozen=True)
class Request:
    """One artefact that is wanted.

    Attributes:
        kind: what it holds.
        expert: whose it is, by name; empty for one of all models together.
        models: content fingerprints of what it depends on.
        companions: digest of the config and the tokenizer that texts are read with.
        suite: digest of the suite, and of the documents of it that are read.
        settings: how it is measured.
    """

    kind: ArtefactKind
    expert: str
    models: tuple[str, ...]
    companions: str
    suite: str
    settings: tuple[tuple[str, Any], ...]

    @property
    def digest(self) -> str:
        """32 hex digits; the expert's name does not count."""
        content = [VERSION, self.kind, self.models, self.companions, self.suite, self.settings]
        return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()

    def setting(self, name: str) -> Any:
        """The setting of that name."""
        return dict(self.settings)[name]


def requests(recipe: Recipe, models: Described) -> tuple[Request, ...]:
    """Every artefact that building the recipe reads, each once."""
    found = (one for merge in (*recipe.groups, *recipe.overrides) for one in requests_of(merge, recipe, models))
    return tuple(dict.fromkeys(found))


def requests_of(merge: Merge, recipe: Recipe, models: Described) -> tuple[Request, ...]:
    """The artefacts that one group of the recipe reads, in the order they can be measured in."""
    row = method(merge.method)
    if not row.artefacts:
        return ()
    given = {p.name: (p, merge.parameters.get(p.name, p.default)) for p in row.parameters if p.stage == "measure"}
    settings = tuple((name, p.check(value, name)) for name, (p, value) in given.items() if not isinstance(value, dict))
    rest, asked = (models.companions_digest, recipe.suite), dict(settings)
    every = likelihoods_of(models, *rest, asked["documents"]) if asked.get("texts") == "own" else ()
    fingerprints = [models.fingerprints[f"expert:{name}"] for name in models.names]
    everyone = tuple(sorted(fingerprints))
    found = []
    for kind in row.artefacts:
        if kind in JOINT:
            own_numbers = (("recipe", recipe.digest(models.fingerprints)),) if kind in OF_RECIPE else ()
            all_models = (models.fingerprints["base"], *everyone)
            found.append(Request(kind, "", all_models, *rest, (*settings, *own_numbers)))
        else:
            for name, own in zip(models.names, fingerprints, strict=True):
                beside = (models.fingerprints["base"],) if kind in OF_DELTAS else ()
                found.append(Request(kind, name, (own, *beside, *(everyone if every else ())), *rest, settings))
    return (*every, *found)


def likelihoods_of(models: Described, companions: str, suite: str, documents: Any) -> tuple[Request, ...]:
    """How well each expert explains the documents, in the order of `models.names`."""
    settings = (("documents", documents),)
    names = ((name, models.fingerprints[f"expert:{name}"]) for name in models.names)
    return tuple(Request("likelihoods", name, (own,), companions, suite, settings) for name, own in names)
