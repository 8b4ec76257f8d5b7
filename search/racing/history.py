"""What earlier candidates say of this one: stopped where its estimated full score does not come up to the best one's.

The estimate is a ridge regression of the complete trials' values on their items on the rung's documents, and on what
they are made of (`search/estimates/ridge.py`); its error is that of leaving each of them out. Where a plain mean over
few documents mostly shows which documents were drawn, this knows which of them tell candidates apart.

Until enough trials are complete, candidates of earlier studies over the same documents stand in for them, without
what they are made of; where there are none there is nothing to learn from, and it halves. Item response theory, which
learns the documents rather than the scores, was no better at this, nor was what shares only some of the documents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from merging.catalog import Scalar
from search.estimates.contract import Floats
from search.estimates.features import Features, FittedFeatures, fit_features
from search.racing.contract import Contender, Field, Past, Promote, Stop, joined
from search.racing.halving import Halving

ENOUGH = 10  # complete trials; halving takes 55 to 100 trials to so many, and 200 trials hardly bring 25
Params = Mapping[str, Scalar] | None


class LearnedFromHistory:
    """Promotes who may still be the best by what is known of the complete trials. A memo saves fitting twice."""

    def __init__(self) -> None:
        self._memo: dict[tuple[int, tuple[str, ...]], tuple[tuple[int, ...], Learned]] = {}

    def entry(self, number: int) -> int:
        """The smallest rung."""
        return 0

    def decide(self, contender: Contender, field: Field) -> Promote | Stop:
        """Go on if the estimate plus its error exceeds the incumbent's value."""
        best, past = field.incumbent, field.past(contender.rung)
        own = len(past.numbers)
        if own < ENOUGH and (others := field.predecessors(contender.rung)) is not None:
            past = joined(past, others)
        if best is None or len(past.values) < ENOUGH:
            return Halving().decide(contender, field)
        mean, error = self._learned(contender, past).estimate(contender, past)
        if mean + error > best.value:
            return Promote(contender.rung + 1)
        documents = sum(len(s.documents) for s in contender.scores)
        known = settled(len(past.values))
        elsewhere = f", {known - own} of them of earlier studies" if len(past.values) > own else ""
        said = f"estimated at {mean:.4f} ± {error:.4f} after {documents} documents, by {known} trials{elsewhere}"
        return Stop(f"history: {said}; trial {best.number} has {best.value:.4f}", mean)

    def _learned(self, contender: Contender, past: Past) -> "Learned":
        key = contender.rung, numeric(contender.params)
        numbers, learned = self._memo.get(key, ((), None))
        wanted = past.numbers[: settled(len(past.numbers))]
        if learned is None or numbers != wanted:
            learned = learn(past, key[1])
            self._memo[key] = wanted, learned
        return learned


@dataclass(frozen=True)
class Learned:
    """The regression on one rung. Attributes: `names` of the parameters that it reads beside the items."""

    fitted: FittedFeatures
    names: tuple[str, ...]

    def estimate(self, contender: Contender, past: Past) -> tuple[float, float]:
        """What the contender is worth on all search documents, and the standard error."""
        made_of = table([contender.params], self.names)
        features = Features(past.row(contender.scores)[None], np.array([[contender.value]]), coefficients=made_of)
        found = self.fitted.predict(features)
        return float(found.mean[0]), float(found.error[0])


def settled(count: int) -> int:
    """Of so many complete trials, how many are learned from: all, or of many the first by number.

    So thousands of trials are not learned from anew after each of them; at most a thirty-second is left out.
    """
    step = 1 << max(0, (count // 32).bit_length() - 1)
    return count - count % step


def learn(past: Past, names: tuple[str, ...]) -> Learned:
    """The regression on the trials that have all these parameters; where those are few, on all, without parameters."""
    trials = past.params[: settled(len(past.params))]
    own = [i for i, params in enumerate(trials) if params is not None and set(names) <= params.keys()]
    if len(own) < ENOUGH:
        own, names = list(range(len(trials))), ()
    made_of = table([trials[i] for i in own], names)
    features = Features(past.items[own], past.on_rung[own][:, None], coefficients=made_of)
    return Learned(fit_features(features, past.values[own]), names)


def numeric(params: Params) -> tuple[str, ...]:
    """Which parameters are numbers, sorted by name."""
    return tuple(sorted(name for name, value in (params or {}).items() if isinstance(value, int | float)))


def table(trials: Sequence[Params], names: tuple[str, ...]) -> Floats | None:
    """[trials, names]; None where there are no names."""
    return np.array([[float((params or {})[name]) for name in names] for params in trials]) if names else None
