"""What is known of a study's models and tasks before it begins, and what `auto` decides by it."""

from evaluation.calibration import examples
from evaluation.suite import Suite
from merging.errors import InvalidStudy
from merging.models import ModelSet
from merging.profiling import sums_bytes
from search.planning import AUTO, Known, Plan, plan
from search.study import StudySpec


def decided(spec: StudySpec, models: ModelSet, suite: Suite) -> Plan | None:
    """The plan of a study; None where it says itself what it searches."""
    if spec.search.strategy != AUTO:
        return None
    counting = [task.name for task in spec.evaluation.tasks if task.weight > 0]
    documents = sum(len(suite.documents(name, "search")) for name in counting)
    return plan(spec, Known(models.layout.layer_count, sums_bytes(models), documents, has_answers(suite)))


def has_answers(suite: Suite) -> bool:
    """Whether the tasks say in words what is right."""
    try:
        return bool(examples(suite, 1))
    except InvalidStudy:
        return False
