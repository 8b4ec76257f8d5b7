"""Whether vLLM is there. Nothing of it is loaded here."""

from importlib.util import find_spec

from evaluation.spec import EvaluationSpec
from merging.errors import InvalidStudy


def require_backend(spec: EvaluationSpec) -> None:
    """See that what the study is to be scored with is installed on this machine.

    Raises:
        InvalidStudy: it is not.
    """
    if spec.backend == "vllm":
        require_vllm()


def require_vllm() -> None:
    """See that vLLM is installed; raises InvalidStudy if not."""
    if find_spec("vllm") is None:
        remedy = "pip install vllm where candidates are scored, or leave the key out"
        raise InvalidStudy("evaluation.backend", "vllm", "is not installed", remedy)
