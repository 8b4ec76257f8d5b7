"""The errors mergesearch raises on purpose, in one tree; those of one module alone hang on it beside their cause.

MergesearchError
├── InvalidInput          what the user gave cannot work; nothing was created
│   ├── InvalidStudy      the study file
│   ├── InvalidRecipe     a recipe
│   └── InvalidModel      a model folder: missing, pickled, truncated, of another shape, not finite
├── OutputError           the place to write to: it exists, or cannot be written
├── NotFound              a study, trial or verdict that does not exist
├── Conflict              somebody else is doing it, or it was already done differently
└── NonFiniteCandidate    a merge came out with NaN or infinity: a result of a trial, not a fault

Messages of InvalidInput and OutputError have one form: `key: value problem; remedy`.
Errors that retrying can cure are not in this tree: they are the vendors' own (a lost file system, memory).
"""


class MergesearchError(Exception):
    """The root: catch this to catch everything mergesearch raises on purpose."""


class InvalidInput(MergesearchError):
    """Something the user gave cannot work.

    Args:
        key: where it stands, as a dotted path (`models.experts[1].path`).
        value: what stands there, shown as it is; None shows nothing.
        problem: what is wrong with it, a clause that follows the value.
        remedy: what to do about it, an imperative sentence.
    """

    def __init__(self, key: str, value: object, problem: str, remedy: str) -> None:
        self.key, self.value, self.problem, self.remedy = key, value, problem, remedy
        shown = "" if value is None else f"{value!r} "
        super().__init__(f"{key}: {shown}{problem}; {remedy}")

    def __reduce__(self) -> tuple[type, tuple[str, object, str, str]]:
        return type(self), (self.key, self.value, self.problem, self.remedy)


class InvalidStudy(InvalidInput):
    """The study file cannot be run as it is."""


class InvalidRecipe(InvalidInput):
    """The recipe cannot be built as it is."""


class InvalidModel(InvalidInput):
    """A model folder cannot be merged as it is."""


class OutputError(InvalidInput):
    """The output folder exists or cannot be written."""


class NotFound(MergesearchError):
    """The named study, trial or verdict does not exist."""


class Conflict(MergesearchError):
    """Another process is doing this, or it was already done differently."""


class NonFiniteCandidate(MergesearchError):
    """A merge produced NaN or infinity.

    Args:
        tensor: name of the first such tensor.
        method: the method that produced it.
    """

    def __init__(self, tensor: str, method: str) -> None:
        self.tensor, self.method = tensor, method
        super().__init__(f"method {method} produced non-finite values in tensor {tensor}")

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.tensor, self.method)
