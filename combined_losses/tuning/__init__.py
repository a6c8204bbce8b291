"""Which weights? Searches on the user's own data, by ordinary trainings."""

from combined_losses.tuning.comparing import compare
from combined_losses.tuning.comparison import Comparison
from combined_losses.tuning.front import Front
from combined_losses.tuning.results import Difference, Run
from combined_losses.tuning.search_result import Best, SearchResult
from combined_losses.tuning.searching import search
from combined_losses.tuning.trade_offs import pareto

__all__ = [
    "Best",
    "Comparison",
    "Difference",
    "Front",
    "Run",
    "SearchResult",
    "compare",
    "pareto",
    "search",
]


def __dir__() -> list[str]:
    return __all__
