"""`diagnose`: what every component of a compiled model does on data, and what is wrong with it."""

from combined_losses.diagnosis.diagnose import diagnose
from combined_losses.diagnosis.result import Diagnosis

__all__ = ["Diagnosis", "diagnose"]


def __dir__() -> list[str]:
    return __all__
