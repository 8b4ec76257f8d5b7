"""The strategies by name: what each takes, and its options. Checked where a study is read; no torch, no Optuna here."""

from typing import Any

from merging.catalog import Scalar
from merging.errors import InvalidStudy
from search.spacespec import near
from search.strategies.option import Declared, Option
from search.strategies.proposer.settings import require_settings

_TERMS = (
    Option(
        "rule",
        "`mean`: a soup is accepted if it is not worse; `paired`: if a paired test of the documents says it is better",
        "choice",
        "mean",
        choices=("mean", "paired"),
    ),
    Option("p", "of `paired`: the test is passed below this one-sided p", "float", 0.2, 1e-6, 0.5),
    Option("margin", "standard errors by which it must be better; below 0: may be worse", "float", 0.0, -5.0, 5.0),
    Option("guard", "how far no task may fall below the soup before, in its units; -1: no guard", "float", -1.0, -1.0),
)

EVOLUTIONS = ("niches", "map_elites", "novelty", "genetic")

_STAGES = (
    Option(
        "granularity",
        "`coarse_to_fine`: all layers of a coefficient move together first, then four segments of the layers, then "
        "each layer; `all`: each layer from the first",
        "choice",
        "coarse_to_fine",
        choices=("coarse_to_fine", "all"),
    ),
    Option(
        "layers",
        "so many layers, those the experts changed most, move alone in the last stage, the others by segment; 0: all",
        "int",
        0,
        low=0,
    ),
)
_BREEDING = (
    Option("population", "how many recipes are kept to breed from", "int", 20, 4, 1000),
    Option("mutation", "deviation of each number's step, as a share of its range", "float", 0.1, 0.0, 1.0),
)
_ROWS = (
    Declared(
        "auto",
        "picks methods, layers and the search from the models and the budget, and says why",
        several=True,
    ),
    Declared("random", "independent uniform draws: the honest baseline", several=True, warm=False),
    Declared(
        "qmc",
        "a scrambled Sobol sequence: draws that fill the space more evenly than independent ones",
        "https://doi.org/10.1016/0041-5553(67)90144-9",
        several=True,
        warm=False,
    ),
    Declared(
        "grid",
        "every combination of evenly spaced values",
        options=(
            Option(
                "points",
                "values of each number, both bounds among them; 0: as many as let the grid end within the trials, 2 at "
                "least",
                "int",
                0,
                low=0,
                high=1000,
            ),
        ),
        several=True,
        warm=False,
    ),
    Declared(
        "tpe",
        "Optuna's multivariate tree-structured Parzen estimator, for any space",
        "https://arxiv.org/abs/2304.11127",
        several=True,
    ),
    Declared(
        "gp",
        "Bayesian optimisation: a Gaussian process that weighs each trial by how much of it was scored",
        options=(Option("importance", "expect more of the layers that the experts changed most", "bool", True),),
        several=True,
    ),
    Declared(
        "cmaes",
        "CMA-ES from coarse to fine, begun at the best start",
        "https://arxiv.org/abs/1604.00772",
        options=_STAGES,
        choices=False,
    ),
    Declared(
        "nsga2",
        "evolution towards the front of several objectives, spread by crowding",
        "https://doi.org/10.1109/4235.996017",
        options=_BREEDING,
        several=True,
    ),
    Declared(
        "nsga3",
        "evolution towards the front of several objectives, spread along reference directions: for three and more",
        "https://doi.org/10.1109/TEVC.2013.2281535",
        options=_BREEDING,
        several=True,
    ),
    Declared(
        "arms",
        "a search of its own for each method, the better ones longer",
        "https://arxiv.org/abs/1502.07943",
        options=_STAGES,
    ),
    Declared(
        "greedy_soup",
        "adds whole experts to a plain average one by one while that does no harm",
        "https://arxiv.org/abs/2203.05482",
        options=(
            *_TERMS,
            Option(
                "order",
                "`score`: one after the other, the best expert first; `steepest`: of all additions the best",
                "choice",
                "score",
                choices=("score", "steepest"),
            ),
            Option("repeats", "offer experts that are in the soup again, so that one may count twice", "bool", True),
            Option("retry", "without `repeats`: offer the rejected once more, if the soup has changed", "bool", False),
            Option("backward", "at the end, drop experts whose removal does no harm", "bool", False),
        ),
        whole=True,
        warm=False,
    ),
    Declared(
        "pruned_soup",
        "begins with the average of all experts and drops those that it is better without",
        "https://arxiv.org/abs/2301.10092",
        options=(
            *_TERMS,
            Option(
                "variant",
                "`pruned`, or `ranked`: the averages of the best 1, 2, 3, ... experts",
                "choice",
                "pruned",
                choices=("pruned", "ranked"),
            ),
            Option(
                "order",
                "`steepest`: drop whose removal helps most; `score`: look at each in turn, the weakest first",
                "choice",
                "steepest",
                choices=("steepest", "score"),
            ),
            Option("passes", "of order `score`: how often each expert is looked at", "int", 2, 1, 100),
        ),
        whole=True,
        warm=False,
    ),
    Declared(
        "ensemble_soup",
        "proposes the averages that an ensemble of the experts' own answers promises most of",
        "https://arxiv.org/abs/2401.17790",
        options=(
            Option("candidates", "averages that are estimated", "int", 4000, 10, 100_000),
            Option("parts", "weights are multiples of one over this", "int", 20, 2, 100),
            Option("apart", "share of the weight that must lie elsewhere than in any tried", "float", 0.1, 0.0, 1.0),
        ),
        warm=False,
    ),
    Declared(
        "evolution",
        "children of two recipes that complement each other, split by layer; everything from what was scored",
        "https://arxiv.org/abs/2508.16204",
        options=(
            Option("scheme", "who the parents are", "choice", "niches", choices=EVOLUTIONS),
            Option("population", "most recipes kept as parents (not of map_elites)", "int", 20, 2, 1000),
            Option("mutation", "deviation of each number's step, as a share of its range", "float", 0.05, 0, 1),
            Option("switch", "choices of a child that are drawn anew, on average", "float", 0.1, 0, 100),
        ),
    ),
    Declared(
        "layer_order",
        "repeats, leaves out and moves blocks of layers, with one weight an expert",
        "https://arxiv.org/abs/2403.13187",
        options=(
            Option("blocks", "most contiguous runs of layers in a result", "int", 3, 2, 64),
            Option("extra", "layers a result may have more or fewer; 0: a quarter of the models'", "int", 0, 0, 1000),
            Option("mutation", "deviation of each weight's step, as a share of its range", "float", 0.05, 0, 1),
            Option("population", "most recipes kept as parents", "int", 20, 2, 1000),
        ),
        restacks=True,
    ),
    Declared(
        "carbs",
        "local search around the front of cost and value, for methods that differ in what a candidate takes",
        "https://arxiv.org/abs/2306.08055",
        options=(
            Option(
                "radius",
                "deviation of the longest steps from the front, as a share of each range",
                "float",
                0.2,
                0.001,
                1.0,
            ),
        ),
    ),
    Declared(
        "inclusion",
        "leaves experts out of layers, with one weight an expert",
        "https://arxiv.org/abs/2301.12132",
        options=(
            Option("flips", "most experts that are added and removed at once; 0: half of all", "int", 0, 0, 100_000),
            Option("step", "deviation of each weight's longest step, as a share of its range", "float", 0.1, 0.0, 1.0),
        ),
        choices=False,
    ),
    Declared(
        "proposer",
        "asks a served language model, and TPE where that gives nothing to try",
        "https://arxiv.org/abs/2309.03409",
        options=(
            Option("url", "base URL of an OpenAI-compatible API", "text", ""),
            Option("model", "the model that is asked", "text", ""),
            Option("api_key_env", "the environment variable with its key; ends with API_KEY", "text", ""),
            Option("batch", "proposals asked for in one request", "int", 4, 1, 64),
            Option("history", "of the best and of the latest trials, so many are shown", "int", 20, 1, 1000),
            Option("temperature", "of the answers", "float", 0.7, 0.0, 2.0),
        ),
        check=require_settings,
    ),
)
STRATEGIES: dict[str, Declared] = {row.name: row for row in _ROWS}


def options_of(name: str, given: dict[str, Scalar]) -> dict[str, Any]:
    """Every option of a strategy, as given or at its default.

    Raises:
        InvalidStudy: the strategy has no such option, it takes no such value, or one that it needs is missing.
    """
    known = {option.name: option for option in STRATEGIES[name].options}
    for key, value in given.items():
        if key not in known:
            problem = f"is no option of {name}"
            raise InvalidStudy(f"search.options.{key}", value, problem, near(key, known) if known else "leave it out")
    found = {key: option.check(given.get(key, option.default)) for key, option in known.items()}
    if (check := STRATEGIES[name].check) is not None:
        check(found)
    return found
