"""What shows a person what a composite does."""

from combined_losses.reporting import plots
from combined_losses.reporting.diagnose import diagnose
from combined_losses.reporting.diagnosis import Diagnosis

__all__ = ["Diagnosis", "diagnose", "plots"]
