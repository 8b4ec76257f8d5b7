"""`auto`: the strategy for whoever names none. What it searches was planned before the study began (`search.planning`);
here is how.

One objective: an arm for each method, each begun at the best that is known of it; where every group of layers has a
method of its own, evolution, which finds no worse than TPE there for a hundredth of its time (docs/benchmarks.md).
Several: a Gaussian process, which makes most of few trials, then NSGA-II, whose proposals hardly take longer the more
trials there are.
"""

from dataclasses import replace

from search.planning import MODELLED, search_of
from search.strategies.arms.search import Arms
from search.strategies.contract import Strategy
from search.strategies.declared import options_of
from search.strategies.evolution import evolution
from search.strategies.gaussian import Gaussian
from search.strategies.nsga.search import nsga2
from search.strategies.opening import Opening
from search.strategies.staged import Part, Staged


def auto(opening: Opening) -> Strategy:
    """The strategy of a study that names none.

    Raises:
        InvalidStudy: there is nothing to vary.
    """
    space, begun = opening.space, len(opening.starts)
    kind = search_of(opening.objectives > 1, space.per_group and len(space.methods) > 1)
    if kind == "front":
        model = Part("gp", Gaussian(_with(opening, "gp")), max(MODELLED - begun, 0))
        return Staged([model, Part("nsga2", nsga2(_with(opening, "nsga2")))], begun)
    if kind == "evolution":
        return evolution(_with(opening, "evolution"))
    return Arms(_with(opening, "arms"))


def _with(opening: Opening, name: str) -> Opening:
    """The opening for one of its parts, whose options are at their defaults."""
    return replace(opening, options=options_of(name, {}))
