"""Ingredient policies: experts that a study names together by what they have in common. No torch here.

A policy is looked up once, where a study is loaded from a file or submitted; from then on the study lists plain
experts, each with the policy that found it. Only names of files are looked at here: whether the models fit is seen
where they are opened.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any, Literal, get_args

from merging.errors import InvalidStudy
from search.spacespec import near

Policy = Literal["checkpoints", "runs", "replicas", "datasets", "lineage"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
EXPERT_NAME = r"^[A-Za-z0-9._+-]{1,100}$"
_PLAIN = {"path", "name", "policy", "order"}
_ADAPTER = "adapter_config.json"
_MODEL = ("config.json", _ADAPTER, "delta.json")
_SIGNS = f"it has no {', '.join(_MODEL[:-1])} or {_MODEL[-1]}"
_CHECKPOINT = re.compile(r"checkpoint-([0-9]{1,15})")
_MOST_LOOKED = 20_000
_STAND_IN = {"path": "not-found-yet", "name": "not-found-yet"}


@dataclass(frozen=True)
class Ground:
    """Where folders are looked for.

    Attributes:
        starts: the absolute folders that a path may stand for, the most wanted first, from the key that names it and
            the path; raises InvalidStudy where it may stand for none.
        inside: whether what lies at an absolute path, links followed, may be read.
    """

    starts: Callable[[str, str], Sequence[str]]
    inside: Callable[[str], bool]


@dataclass(frozen=True)
class Ingredients:
    """One entry of `models.experts` that stands for several.

    Attributes:
        key: where it is written, as `models.experts[1].runs`.
        where: a folder or a pattern, by the name that goes with it; only `lineage` has names, and several.
        last: of the checkpoints that `every` leaves, so many are kept; None: all.
        every: of the checkpoints, each so-manieth is kept, counted from the last.
    """

    key: str
    policy: Policy
    where: Mapping[str, str]
    last: int | None = None
    every: int = 1

    @property
    def shown(self) -> str:
        """What is written there: the folder or the pattern; of a lineage, its folders."""
        return ", ".join(self.where.values())


def named(expert: Any) -> Any:
    """A plain entry of `models.experts` with its name, which is the path's last part unless it is written."""
    if isinstance(expert, str):
        return {"path": expert, "name": PurePath(expert).name}
    if isinstance(expert, dict) and "path" in expert and "name" not in expert:
        return {**expert, "name": PurePath(str(expert["path"])).name}
    return expert


def ingredients(content: Any) -> dict[int, Ingredients]:
    """The entries of a study's `models.experts` that stand for several, by their place in the list.

    Args:
        content: the study as parsed YAML or JSON; what is wrong elsewhere in it is not looked at.

    Raises:
        InvalidStudy: such an entry is not written as it should be.
    """
    models = content.get("models")
    experts = models.get("experts") if isinstance(models, dict) else None
    entries = enumerate(experts) if isinstance(experts, list | tuple) else ()
    return {index: _read(f"models.experts[{index}]", entry) for index, entry in entries if _stands_for_several(entry)}


def stood_in(content: Any, asked: Mapping[int, Ingredients]) -> Any:
    """The study with one plain expert in the place of each of these entries: to check all else of it as written."""
    return _replaced(content, {index: [_STAND_IN] for index in asked})


def gathered(content: Any, asked: Mapping[int, Ingredients], ground: Ground | None) -> Any:
    """The study with plain experts in the place of these entries, in the order of each policy.

    Args:
        content: a study whose other entries are as they should be.
        ground: where to look; None: nowhere.

    Raises:
        InvalidStudy: an entry finds nothing, or what is no model, or a name that another expert has.
    """
    found = {index: _look_up(each, ground) for index, each in asked.items()}
    listed = [
        (asked.get(index), one["name"])
        for index, entry in enumerate(content["models"]["experts"])
        for one in found.get(index, [named(entry)])
    ]
    count = Counter(name for _, name in listed)
    for each, name in listed:
        if each is not None and count[name] > 1:
            remedy = "rename a folder, or list these experts with a `path` and a `name` each"
            raise InvalidStudy(each.key, name, "would name two experts", remedy)
    return _replaced(content, found)


def _replaced(content: Any, by: Mapping[int, Sequence[Any]]) -> Any:
    if not by:
        return content
    models = content["models"]
    experts = [one for index, entry in enumerate(models["experts"]) for one in by.get(index, [entry])]
    return {**content, "models": {**models, "experts": experts}}


def _stands_for_several(entry: Any) -> bool:
    """Also of a mapping in which the policy's name is misspelt."""
    keys = set(entry) if isinstance(entry, dict) else set()
    return bool(keys & set(POLICIES)) or ("path" not in keys and bool(keys - _PLAIN))


def _read(key: str, entry: Mapping[Any, Any]) -> Ingredients:
    policies = [policy for policy in POLICIES if policy in entry]
    known = {*(policies or (*POLICIES, *_PLAIN)), *(("last", "every") if policies == ["checkpoints"] else ())}
    for wrong in entry:
        if wrong not in known:
            remedy = near(str(wrong), sorted(known))
            raise InvalidStudy(f"{key}.{wrong}", entry[wrong], "is an unknown key", remedy)
    policy, *others = policies
    if others:
        remedy = "write an entry of the list for each"
        raise InvalidStudy(f"{key}.{others[0]}", entry[others[0]], f"stands beside {policy}", remedy)
    if policy == "lineage":
        return Ingredients(f"{key}.lineage", policy, _lineage(f"{key}.lineage", entry[policy]))
    where = _text(f"{key}.{policy}", entry[policy])
    last = _count(f"{key}.last", entry["last"]) if "last" in entry else None
    every = _count(f"{key}.every", entry["every"]) if "every" in entry else 1
    return Ingredients(f"{key}.{policy}", policy, {"": where}, last, every)


def _lineage(key: str, where: Any) -> dict[str, str]:
    if not isinstance(where, dict) or not where:
        raise InvalidStudy(key, where, "is not valid", "write NAME: FOLDER for each auxiliary start")
    return {_name(key, name): _text(f"{key}.{name}", folder) for name, folder in where.items()}


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise InvalidStudy(key, value, "is not valid", "write a folder, or where several are looked for a pattern")
    return value


def _count(key: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidStudy(key, value, "is not valid", "write a whole number of 1 or more")
    return value


def _name(key: str, name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(EXPERT_NAME, name):
        problem = "cannot name an expert: that takes 1 to 100 letters, digits, `.`, `_`, `+` and `-`"
        raise InvalidStudy(key, name, problem, "rename the folder, or list the expert with a `path` and a `name`")
    return name


def _look_up(asked: Ingredients, ground: Ground | None) -> list[dict[str, Any]]:
    if ground is None:
        remedy = "load the study from a file, or list the experts by path"
        raise InvalidStudy(asked.key, asked.shown, "is looked up only where a study is loaded or submitted", remedy)
    search = _Search(asked, ground)
    try:
        if asked.policy == "lineage":
            return search.lineage()
        return search.checkpoints() if asked.policy == "checkpoints" else search.pattern()
    except (OSError, ValueError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise InvalidStudy(asked.key, asked.shown, f"cannot be read ({said})", "name folders that can be") from error


class _Search:
    """One entry's look at the file system; what lies outside of the ground is neither listed nor asked for."""

    def __init__(self, asked: Ingredients, ground: Ground) -> None:
        self._asked, self._ground = asked, ground
        self._looked = 0

    def lineage(self) -> list[dict[str, Any]]:
        """A model for each name, in the order they are written."""
        found = []
        for name, written in self._asked.where.items():
            key = f"{self._asked.key}.{name}"
            start = next((start for start in self._starts(key, written) if _is_model(start)), None)
            if start is None:
                raise InvalidStudy(key, written, f"is no model ({_SIGNS})", "name the folder of the fine-tuned model")
            found.append(self._model(start, name))
        return found

    def checkpoints(self) -> list[dict[str, Any]]:
        """A run's saved states in the order of their steps, and what it ended with."""
        written = self._asked.shown
        for start in self._starts(self._asked.key, written):
            run = PurePath(written).name
            run = PurePath(start).name if run in ("", "..") else run
            states = self._folders(start, _CHECKPOINT.fullmatch)
            saved = sorted((int(name.partition("-")[2]), path) for name, path in states)
            found: list[tuple[int | None, str]] = [*saved, *([(None, start)] if _is_model(start) else [])]
            if found:
                found = found[:: -self._asked.every][: self._asked.last][::-1]
                return [self._model(path, f"{run}-{'final' if step is None else step}", step) for step, path in found]
        remedy = "name the folder that the training run saved to"
        raise InvalidStudy(self._asked.key, written, "holds no checkpoint-STEP and is no model", remedy)

    def pattern(self) -> list[dict[str, Any]]:
        """The models that a pattern finds, in natural order, named by the parts that it leaves open."""
        parts = PurePath(self._asked.shown).parts
        cut = next((index for index, part in enumerate(parts) if _is_open(part)), len(parts))
        for part in parts[cut:]:
            if part == ".." or "**" in part:
                remedy = "write each level out, such as runs/*/final"
                raise InvalidStudy(self._asked.key, self._asked.shown, f"has {part!r} in its open part", remedy)
        for start in self._starts(self._asked.key, str(PurePath(*parts[:cut]))):
            if found := self._matches(start, parts[cut:]):
                found.sort(key=lambda one: [(_natural(part), part) for part in one[0]])
                return [self._model(path, "-".join(opened or parts[-1:])) for opened, path in found]
        remedy = "let it find the folders of models, such as runs/*"
        raise InvalidStudy(self._asked.key, self._asked.shown, "finds no folder", remedy)

    def _model(self, path: str, name: str, step: int | None = None) -> dict[str, Any]:
        """The plain expert."""
        if not _is_model(path):
            problem = f"finds {os.path.basename(path)!r}, which is no model ({_SIGNS})"
            raise InvalidStudy(self._asked.key, self._asked.shown, problem, "let it find the folders of models alone")
        about = {} if step is None else {"order": step}
        return {"path": path, "name": _name(self._asked.key, name), "policy": self._asked.policy, **about}

    def _starts(self, key: str, path: str) -> list[str]:
        return [start for start in self._ground.starts(key, path) if os.path.isdir(start)]

    def _matches(self, start: str, parts: Sequence[str]) -> list[tuple[tuple[str, ...], str]]:
        """Folders that fit part by part: the names in the open parts, and the path."""
        found: list[tuple[tuple[str, ...], str]] = [((), start)]
        for part in parts:
            found = [
                ((*opened, name) if _is_open(part) else opened, inner)
                for opened, path in found
                for name, inner in self._fitting(path, part)
            ]
        return found

    def _fitting(self, path: str, part: str) -> Iterator[tuple[str, str]]:
        if _is_open(part):
            return self._folders(path, lambda name: fnmatchcase(name, part) and (name[0] != "." or part[0] == "."))
        return self._inside([(part, os.path.join(path, part))])

    def _folders(self, path: str, fits: Callable[[str], object]) -> Iterator[tuple[str, str]]:
        """The folders in a folder whose names fit, sorted by name."""
        names = os.listdir(path)
        self._looked += len(names)
        if self._looked > _MOST_LOOKED:
            problem = f"leads through more than {_MOST_LOOKED} files"
            raise InvalidStudy(self._asked.key, self._asked.shown, problem, "begin it with more of the path")
        return self._inside([(name, os.path.join(path, name)) for name in sorted(names) if fits(name)])

    def _inside(self, places: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        for name, path in places:
            if not self._ground.inside(path):  # asked before anything else: nobody learns what lies there
                problem = f"finds {name!r}, which leads out of the permitted roots"
                raise InvalidStudy(self._asked.key, self._asked.shown, problem, "put the folder itself there")
            if os.path.isdir(path):
                yield name, path


def _is_open(part: str) -> bool:
    return any(sign in part for sign in "*?[")


def _natural(name: str) -> list[int | str]:
    """What sorts `run-9` before `run-10`: texts and numbers take turns, so that like is compared with like."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split(r"([0-9]+)", name))]


def _is_model(folder: str) -> bool:
    """Whether it looks like one; where a link in it leads is not asked."""
    steps = [name for name in os.listdir(folder) if name.isdigit() and not os.path.islink(os.path.join(folder, name))]
    signs = [*_MODEL, *(os.path.join(step, _ADAPTER) for step in steps)]  # LoRAs on top of each other are numbered
    return any(os.path.lexists(os.path.join(folder, sign)) for sign in signs)
