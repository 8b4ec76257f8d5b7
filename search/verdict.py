"""The verdict: the winner and the baselines on documents that no search decision has read. Records only.

The winner was picked as the best of many on the search documents, so its score there flatters it. The holdout is read
once, at the end; `search.appraisal` makes a verdict of what is found there. Whatever was added since the first
version has a default, so that verdicts of before are read as they are.
"""

from pydantic import BaseModel, ConfigDict, Field

from search.explain.record import Explanation
from search.stopping.ended import Ended

SCHEMA = "mergesearch/verdict/v1"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class TaskPair(_Frozen):
    """One task's value on the search documents and on the holdout, with lm-eval's standard errors."""

    metric: str
    search: float
    search_stderr: float | None
    holdout: float
    holdout_stderr: float | None


class Against(_Frozen):
    """The winner minus this candidate on the holdout: 95 % interval, two-sided p of the paired test.

    Attributes:
        p_value: of the verdict's `test`, which is of the objective; the one to go by.
        mcnemar: of McNemar's exact test over all documents alike; None where they are not right or wrong.
        wilcoxon: of Wilcoxon's signed-rank test of the same; None where a document has no value alone.
    """

    difference: float
    low: float
    high: float
    p_value: float
    mcnemar: float | None = None
    wilcoxon: float | None = None


class Finalist(_Frozen):
    """One candidate in the report.

    Attributes:
        low, high: 95 % interval of `holdout`.
        winner_minus_this: None for the winner itself.
        shrinkage: `search` minus `holdout`: what the score lost on documents that did not pick it.
    """

    label: str
    trial: int
    recipe_digest: str
    search: float
    holdout: float
    low: float
    high: float
    tasks: dict[str, TaskPair]
    winner_minus_this: Against | None
    shrinkage: float | None = None


class Kept(_Frozen):
    """A constraint and the winner: by how much it breaks it; 0 or less: it meets it.

    Attributes:
        holdout: None where the reference was not scored there.
    """

    constraint: str
    search: float
    holdout: float | None = None

    @property
    def said(self) -> str:
        """Where it is met and where not, in words."""
        there = "" if self.holdout is None else f", {'met' if self.holdout <= 0 else 'not met'} on the holdout"
        return f"{'met' if self.search <= 0 else 'not met'} on the search documents{there}"


class FrontPoint(_Frozen):
    """A trial that none beats in one task without losing in another: its value in each, on the search documents."""

    trial: int
    label: str
    tasks: dict[str, float]


class ProxyTrust(_Frozen):
    """How far the proxy can be trusted: Spearman's correlation of its score with the objective over these trials."""

    kind: str
    correlation: float | None
    trials: int


class Compressed(_Frozen):
    """That the search saw its experts compressed, and what that cost.

    Attributes:
        codec, settings: what they were packed by.
        bytes_: of base and experts as they were kept.
        whole_bytes: of base and experts as they are.
        bits_per_parameter: of the experts.
        pair: trial numbers of one recipe with compressed experts, and with the experts as they are; None where it
            could not be scored with both.
        search_cost: how much better the latter is on the search documents.
        holdout_cost: and on the holdout.
    """

    codec: str
    settings: dict[str, float]
    bytes_: int = Field(alias="bytes")
    whole_bytes: int
    bits_per_parameter: float
    pair: tuple[int, int] | None = None
    search_cost: float | None = None
    holdout_cost: Against | None = None


class StartScore(_Frozen):
    """One of the recipes that the study began with, on the search documents.

    Attributes:
        search: the score, or of one that was stopped early what it is estimated at.
        documents: that it was scored on.
        full: whether those are all.
    """

    label: str
    trial: int
    search: float
    documents: int
    full: bool


class PassedOver(_Frozen):
    """A trial that scored best on the search documents, but not by enough to be preferred to the best start.

    Attributes:
        difference: by how much it is better than the start.
        stderr: of that, over documents.
    """

    trial: int
    difference: float
    stderr: float


class Verdict(_Frozen):
    """The final report of a study.

    Attributes:
        finalists: the experts, the uniform soup, then the winner.
        winner: its trial number; it may be a baseline.
        best_expert: trial number of the expert that ranks first on the search documents.
        documents: number of documents by part.
        exhausted: the strategy had nothing left to propose, so that fewer trials were run than asked for.
        missing: who should stand among the finalists and could not be scored, with the reason.
        test: whose p the finalists' `p_value` is.
        measured_as: what scores, intervals and p are of where the objective compares trials and has no value of one
            alone; None: of the objective.
        candidates: how many complete trials the winner was picked of; 0 where that was not counted.
        optimism: by how much the best of so many is expected to be flattered by the search documents; at least that
            much where trials were stopped early, since the luck of those left is not all that picked them.
        corrected: the winner's search score without that.
        holdout_reads: how many comparisons were made on the holdout, this one included; after the first it is no
            longer unseen.
        pruned: trials that were stopped before all documents were scored.
        documents_scored: documents scored for all trials together, the rescoring of finalists included.
        documents_full: what scoring each of them in full would have come to.
        constraints: how the winner keeps them, in the study's order.
        front: of the objective `pareto`, the knee first.
        compressed: where the experts were.
        best_start: of those scored in full the start that ranks first; None: an earlier version did not say.
        passed_over: the trial that scored better than the winner, which was preferred to it; see `search.margin`.
        starts: all that have a score or an estimate, the best first.
        ended: why the search was over after so many trials; None: an earlier version did not say.
        explanation: what the winner owes to what; None: the study wanted none, or there is nothing to tell.
    """

    schema_: str = Field(alias="schema", default=SCHEMA)
    objective: str
    finalists: tuple[Finalist, ...]
    winner: int
    best_expert: int | None
    documents: dict[str, int]
    trials: int
    exhausted: bool = False
    missing: dict[str, str] = {}
    test: str = "paired permutation test"
    measured_as: str | None = None
    candidates: int = 0
    optimism: float | None = None
    corrected: float | None = None
    holdout_reads: int = 1
    pruned: int = 0
    documents_scored: int | None = None
    documents_full: int | None = None
    constraints: tuple[Kept, ...] = ()
    proxy: ProxyTrust | None = None
    front: tuple[FrontPoint, ...] = ()
    compressed: Compressed | None = None
    best_start: StartScore | None = None
    passed_over: PassedOver | None = None
    starts: tuple[StartScore, ...] = ()
    ended: Ended | None = None
    explanation: Explanation | None = None

    def of(self, trial: int) -> Finalist:
        """The finalist with that trial number."""
        return next(f for f in self.finalists if f.trial == trial)
