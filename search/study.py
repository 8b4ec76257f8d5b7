"""The study file: what a user asks for, as one frozen, versioned record. No torch here.

Reading it checks everything that can be known without opening models or tasks. Whatever is wrong is said in
one message that names the key, the value and the remedy.
"""

import json
import re
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluation.constraints import ConstraintSpec, check_constraints
from evaluation.objective import RELATIVE, Kind
from evaluation.spec import EvaluationSpec, ProxySpec, older
from merging.compression import Compression
from merging.errors import InvalidStudy
from merging.recipe import DType
from search.ingredients import Ground, gathered, ingredients, stood_in
from search.modelsspec import ModelsSpec
from search.searchspec import DEFAULT_PRUNE, SATISFIED, BudgetSpec, Prune, SearchSpec, StartsSpec
from search.spacespec import SpaceSpec, check_space, near
from search.strategies.declared import STRATEGIES, options_of
from search.yamlfile import read_yaml

SCHEMA = "mergesearch/study/v1"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class StudySpec(_Frozen):
    """A whole study, as in the file."""

    schema_: Literal["mergesearch/study/v1"] = Field(alias="schema")
    name: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    models: ModelsSpec
    space: SpaceSpec = SpaceSpec()
    search: SearchSpec = SearchSpec()
    evaluation: EvaluationSpec
    objective: Kind = "mean"
    constraints: tuple[ConstraintSpec, ...] = ()
    dtype: DType | None = None

    @property
    def racing(self) -> Prune:
        """How trials are stopped early: as the study says, else by `DEFAULT_PRUNE` where its strategy and its
        objective allow that.
        """
        if self.search.prune is not None:
            return self.search.prune
        whole = STRATEGIES[self.search.strategy].whole or self.objective in RELATIVE
        return "off" if whole else DEFAULT_PRUNE

    @property
    def stop(self) -> bool | float:
        """Below which gain of the trials left the search ends: never (False), the noise (True), or that much."""
        if self.search.stop is not None:
            return self.search.stop
        return self.search.strategy in SATISFIED and self.objective not in RELATIVE

    def placed(self, place: Callable[[str, str], str]) -> "StudySpec":
        """The same study with its folders elsewhere.

        Args:
            place: the new folder or file from the key that names it and the one as it stands.
        """
        experts = tuple(
            expert.model_copy(update={"path": place(f"models.experts[{index}].path", expert.path)})
            for index, expert in enumerate(self.models.experts)
        )
        models = self.models.model_copy(update={"base": place("models.base", self.models.base), "experts": experts})
        changed = {"models": models, "search": self.search.placed(place), "evaluation": self.evaluation.placed(place)}
        return self.model_copy(update=changed)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON, the way the database keeps it."""
        return self.model_dump(mode="json", by_alias=True)

    def frozen_digest(self) -> str:
        """Digest of what may not change while the study lives: all but trials, workers and how experts were found."""
        content = self.to_json()
        for key in ("trials", "parallel", "pool", "budget", "stop", "margin", "explain"):
            del content["search"][key]
        for later, unsaid in (("options", {}), ("gates", False), ("starts", StartsSpec().model_dump(mode="json"))):
            if content["search"][later] == unsaid:
                del content["search"][later]
        content["evaluation"] = older(content["evaluation"])
        for later in ("gradient", "fixed"):  # as studies are remembered that were created before these keys
            if not content["space"][later]:
                del content["space"][later]
        models = content["models"]
        models["experts"] = [{key: each[key] for key in ("path", "name")} for each in models["experts"]]
        for later, silent in (("tokenizer", "base"), ("memory", None), ("compress", None)):
            if models[later] == silent:
                del models[later]
        if content["search"]["prune"] is None:
            del content["search"]["prune"]
        if content["space"]["layers"] is None and content["search"]["strategy"] != "auto":  # which decides itself
            content["space"]["layers"] = 1
        content["constraints"] = [
            {k: v for k, v in c.items() if (k, v) != ("retain", None)} for c in content["constraints"]
        ]
        if not content["constraints"]:
            del content["constraints"]
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return blake2b(text.encode(), digest_size=16).hexdigest()


def load_study(path: Path) -> StudySpec:
    """The study in a YAML or JSON file, its folders made absolute. Raises as `read_study`."""
    root = path.resolve().parent
    return read_study(path).placed(lambda key, folder: under(root, key, folder))


def read_study(path: Path) -> StudySpec:
    """The study in a YAML or JSON file as it stands there, but for entries of several experts: these are looked up.

    Raises:
        InvalidStudy: unreadable, or anything in it is wrong.
    """
    try:
        content = read_yaml(path)
    except OSError as error:
        raise InvalidStudy("study file", str(path), f"cannot be read ({error.strerror})", "check the path") from error
    except ValueError as error:
        raise InvalidStudy("study file", str(path), f"is not YAML ({error})", "mend that line") from error
    beside = Ground(lambda key, folder: (under(path.resolve().parent, key, folder),), lambda place: True)
    return parse_study(content, beside)


def parse_study(content: Any, ground: Ground | None = None) -> StudySpec:
    """The study in parsed YAML or JSON.

    Args:
        ground: where entries of several experts are looked up; None: they are refused.

    Raises:
        InvalidStudy: anything in it is wrong.
    """
    if not isinstance(content, dict):
        raise InvalidStudy("study", type(content).__name__, "is not a mapping", f"begin with schema: {SCHEMA}")
    if content.get("schema") != SCHEMA:
        raise InvalidStudy("schema", content.get("schema"), "is not a known version", f"write schema: {SCHEMA}")
    asked = ingredients(content)
    spec = _validated(stood_in(content, asked))  # what is wrong is named by its place in the file
    if asked:
        spec = _validated(gathered(content, asked, ground))
    _check_names(spec)
    if spec.models.compress is not None:
        spec.models.compress.checked("models.compress")
    check_space(spec.space, len(spec.models.experts))
    check_constraints(spec.constraints, [t.name for t in spec.evaluation.tasks], [e.name for e in spec.models.experts])
    _check_racing(spec)
    _check_backend(spec)
    options_of(spec.search.strategy, spec.search.options)
    return spec


def _validated(content: Any) -> StudySpec:
    try:
        return StudySpec.model_validate(content)
    except ValidationError as error:
        raise _translate(error) from error


def under(root: Path, key: str, path: str) -> str:
    """The absolute place of a path that a study names, relative ones taken from `root`; nothing need be there.

    Raises:
        InvalidStudy: no file system takes it.
    """
    try:
        place = (root / Path(path).expanduser()).resolve()
        place.exists()  # where nothing lies is for others to say; what no file system takes shows here
        return str(place)
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user's home, a NUL in it
        shown = path if len(path) < 100 else f"{path[:100]}…"
        raise InvalidStudy(key, shown, f"is no path ({error})", "write a plain path") from error


def _check_names(spec: StudySpec) -> None:
    names = [e.name for e in spec.models.experts]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise InvalidStudy(
                f"models.experts[{index}].name", name, "names two experts", "give one of them another `name`"
            )
    for index, name in enumerate(names):
        if name in ("base", "union"):
            problem = "is a word of its own in `tokenizer`"
            raise InvalidStudy(f"models.experts[{index}].name", name, problem, "give the expert another `name`")
    if spec.models.tokenizer not in ("base", "union", *names):
        remedy = f"use base, union or one of {', '.join(names)}"
        raise InvalidStudy("models.tokenizer", spec.models.tokenizer, "is no model of this study", remedy)
    tasks = [t.name for t in spec.evaluation.tasks]
    for index, name in enumerate(tasks):
        if name in tasks[:index]:
            raise InvalidStudy(f"evaluation.tasks[{index}].name", name, "is listed twice", "list each task once")
    if not any(t.weight > 0 for t in spec.evaluation.tasks):
        raise InvalidStudy("evaluation.tasks", None, "all have weight 0", "give at least one task a weight above 0")


def _check_racing(spec: StudySpec) -> None:
    """What is stopped early must not be needed whole, and several objectives need a strategy that takes several."""
    strategy, prune = spec.search.strategy, spec.search.prune
    if spec.objective == "pareto" and not STRATEGIES[strategy].several:
        problem = "follows one number, and the objective `pareto` gives one a task"
        able = ", ".join(name for name, row in STRATEGIES.items() if row.several)
        raise InvalidStudy("search.strategy", strategy, problem, f"use one of {able}, or another objective")
    if spec.search.stop and spec.objective in RELATIVE:
        problem = f"weighs what there is to gain, and {spec.objective} gives trials no value of their own"
        raise InvalidStudy("search.stop", spec.search.stop, problem, "leave it out, or use another objective")
    if prune in (None, "off"):
        return
    if STRATEGIES[strategy].whole:
        problem = f"stops trials early, and {strategy} compares scores on all documents"
        raise InvalidStudy("search.prune", prune, problem, "leave it out, or use another strategy")
    if spec.objective in RELATIVE:
        problem = f"stops trials early, and the objective {spec.objective} compares them on all documents"
        raise InvalidStudy("search.prune", prune, problem, "leave it out, or use mean, worst or normalized_mean")


def _check_backend(spec: StudySpec) -> None:
    """An engine that was built for the models' layers takes no others."""
    strategy, backend = spec.search.strategy, spec.evaluation.backend
    if STRATEGIES[strategy].restacks and backend != "transformers":
        problem = f"gives results other layers than the {backend} engine has"
        raise InvalidStudy(
            "search.strategy", strategy, problem, "leave out evaluation.backend, or use another strategy"
        )


# a union's branch names end the path; they mean nothing to the user
_BRANCHES = (
    "int",
    "float",
    "bool",
    "constrained-int",
    "function-before[_bytes(), int]",
    "literal['each']",
    "literal['auto']",
    "str",
    "tuple[str, ...]",
)


def _translate(error: ValidationError) -> InvalidStudy:
    """Pydantic's first complaint in the house's form."""
    first = error.errors()[0]
    parts = list(first["loc"])
    while parts and parts[-1] in _BRANCHES and first["type"] != "extra_forbidden":
        parts.pop()
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")
    if first["type"] == "extra_forbidden":
        known = _known_keys(parts[:-1])
        return InvalidStudy(key, first["input"], "is an unknown key", near(str(parts[-1]), known))
    if first["type"] == "missing":
        return InvalidStudy(key, None, "is missing", "add it")
    if first["type"] == "too_short":
        return InvalidStudy(key, first["input"], "is empty", "list at least one")
    # a value that fits no branch of a union is complained of once for each branch
    wishes = [e["msg"].split(", unable")[0] for e in error.errors() if e["loc"][: len(parts)] == tuple(parts)]
    wanted = " or ".join(re.sub(r"^\w+ should ", "", wish) for wish in wishes)
    return InvalidStudy(key, first["input"], "is not valid", f"it should {wanted}")


_RECORDS: dict[Any, Any] = {"proxy": ProxySpec, "compress": Compression, "budget": BudgetSpec, "starts": StartsSpec}


def _known_keys(parts: list[Any]) -> list[str]:
    """The keys that a section of the study file takes, found by walking the records' types."""
    model: Any = StudySpec
    sections = {"models": ModelsSpec, "space": SpaceSpec, "search": SearchSpec, "evaluation": EvaluationSpec}
    for part in parts:
        if part in sections:
            model = sections[part]
        elif part in ("experts", "tasks", "constraints"):
            field = model.model_fields[part].annotation
            model = field.__args__[0]
        elif part in _RECORDS:
            model = _RECORDS[part]
    return [field.alias or name for name, field in model.model_fields.items()]
