"""Soups whose rule asks for one comparison after the other: greedy and pruned, and the ranked soups.

Wortsman et al., "Model soups" (arXiv:2203.05482), recipe 1, is `greedy_soup` with `repeats: false`: the experts are
offered in the order of their own scores, and one stays if the average with it is not worse. Ingredients are whole
models: the space's layers and methods do not matter here.
"""

from typing import Any

from search.soups.acceptance import Acceptance, Terms
from search.soups.all_experts import Pruned, Ranked
from search.soups.book import Book
from search.soups.forward import Forward
from search.soups.paired import Paired
from search.soups.search import SoupSearch
from search.strategies.declared import options_of
from search.strategies.opening import Opening


def greedy_soup(opening: Opening) -> SoupSearch:
    """Adds experts one by one."""
    options, book, paired = _begin("greedy_soup", opening)
    terms = Terms.of(options)
    clean = Acceptance(Terms(guard=terms.guard), paired) if options["backward"] else None  # it drops whom nobody misses
    steepest, repeats, retry = options["order"] == "steepest", options["repeats"], options["retry"]
    rule = Forward(book.names, Acceptance(terms, paired), steepest, repeats, retry, clean)
    return SoupSearch(book, paired, rule.run, opening.trials)


def pruned_soup(opening: Opening) -> SoupSearch:
    """Begins with all experts and drops some, or finds how many of the best are best."""
    options, book, paired = _begin("pruned_soup", opening)
    if options["variant"] == "ranked":
        return SoupSearch(book, paired, Ranked(book.names).run, opening.trials)
    passes = None if options["order"] == "steepest" else options["passes"]
    rule = Pruned(book.names, Acceptance(Terms.of(options), paired), passes)
    return SoupSearch(book, paired, rule.run, opening.trials)


def _begin(name: str, opening: Opening) -> tuple[dict[str, Any], Book, Paired]:
    return options_of(name, opening.options), Book(opening.space), Paired(opening.judge, opening.seed)
