"""What `cl.search`, `cl.compare` and `cl.pareto` give: searches on the user's own data."""

from combined_losses.tuning.comparison import Comparison
from combined_losses.tuning.front import Front
from combined_losses.tuning.results import Difference, Run
from combined_losses.tuning.search_result import Best, SearchResult

__all__ = ["Best", "Comparison", "Difference", "Front", "Run", "SearchResult"]


def __dir__() -> list[str]:
    return __all__
