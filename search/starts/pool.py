"""The pool of starts: which known recipes a study tries first, in which order, and how many.

Measured on the zoo and on toys, a search that begins at the best of a few known recipes beats a cleverer one that
begins in the middle of its ranges, at any budget that users have (docs/benchmarks.md).
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from types import MappingProxyType

from evaluation.constraints import BASE
from merging.profile import Profile
from search.space import Space
from search.starts.given import RECIPE, Given, as_start, near
from search.starts.known import alone, arithmetic, average, default_start, nothing, plain, whole
from search.starts.start import Start

LAMBDAS = (0.3, 0.2, 0.1)  # where task arithmetic is best as a rule, the likeliest first
COCKTAIL, FEW = "lm_cocktail", 8  # documents of each task: the paper's are five in all


def starts(
    space: Space, needed: Sequence[str] = (), given: Mapping[str, Given] = MappingProxyType({})
) -> tuple[Start, ...]:
    """The starts that every study has, without repetitions, baselines first: each expert alone, the uniform soup, the
    base where it is needed, each method of the space at its defaults with equal weights, and what its user gave. A
    search can therefore never return less than its best expert on the search documents.

    Args:
        needed: origins that the study's objective or constraints compare with; the base is scored only if it is one.
        given: recipes by origin; of them, the user's.
    """
    names = tuple(space.experts)
    found = [whole(alone(space, name)) for name in names]
    if len(names) > 1:
        found.append(whole(average(space)))
    if BASE in needed:
        found.append(whole(nothing(space)))
    found += [start for row in space.methods if (start := default_start(space, row)) is not None]
    found += [as_start(space, origin, recipe) for origin, recipe in given.items() if origin.startswith(RECIPE)]
    return _once(found)


def warm_starts(
    space: Space,
    begun: Sequence[Start],
    given: Mapping[str, Given],
    profile: Profile | None,
    most: int,
    *,
    answers: bool = False,
) -> tuple[Start, ...]:
    """`begun` and at most so many others, the most promising kinds first.

    Those are the base, the recipes the study was given (its user's, the best of earlier studies) and beside those that
    lie outside the space the nearest point in it, task arithmetic with one weight for all experts, the closed form of
    MetaGPT (arXiv:2406.11385: weights in proportion to the deltas' squared norms) and that of LM-Cocktail
    (arXiv:2311.13534: by the experts' losses on a few documents), and pairs of experts.

    Args:
        given: recipes over the study's models, by origin.
        profile: of the models; None: nothing by norms.
        answers: whether the tasks say what is right; else there are no losses.
    """
    others = [] if any(start.origin == BASE for start in begun) else [whole(nothing(space))]
    for origin, recipe in given.items():
        others.append(as_start(space, origin, recipe))
        if (beside := near(space, origin, recipe)) is not None:
            others.append(beside)
    names = tuple(space.experts)
    share = 1.0 / len(names)
    others += [arithmetic(space, f"task_arithmetic:{w:g}", dict.fromkeys(names, w)) for w in (share, *LAMBDAS)]
    if profile is not None and (total := sum(profile.squares)) > 0:
        closed = {name: square / total for name, square in zip(names, profile.squares, strict=True)}
        others.append(arithmetic(space, "metagpt", closed))
    if answers:
        cocktail = space.uniform(COCKTAIL, dict.fromkeys(names, 1.0), {"documents": FEW})
        others.append(Start(COCKTAIL, cocktail, None))
    if len(names) > 2:
        others += [plain(space, f"pair:{a}+{b}", {a: 0.5, b: 0.5}) for a, b in combinations(names, 2)]
    unique = _once([*begun, *others])
    return unique[: len(begun) + max(0, most)]


def _once(found: Iterable[Start]) -> tuple[Start, ...]:
    unique: dict[str, Start] = {}
    for start in found:
        unique.setdefault(start.recipe.to_json(), start)
    return tuple(unique.values())
