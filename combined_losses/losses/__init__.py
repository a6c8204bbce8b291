"""Domain losses: `y_true, y_pred` in, one value for each sample (or element) out."""

from combined_losses.losses import (
    boundaries,
    boxes,
    classification,
    distributions,
    embeddings,
    images,
    presets,
    quantiles,
    regions,
    regression,
    spectra,
)
from combined_losses.losses.base import Loss
from combined_losses.losses.boundaries import *  # noqa: F403
from combined_losses.losses.boxes import *  # noqa: F403
from combined_losses.losses.classification import *  # noqa: F403
from combined_losses.losses.distributions import *  # noqa: F403
from combined_losses.losses.embeddings import *  # noqa: F403
from combined_losses.losses.images import *  # noqa: F403
from combined_losses.losses.presets import *  # noqa: F403
from combined_losses.losses.quantiles import *  # noqa: F403
from combined_losses.losses.regions import *  # noqa: F403
from combined_losses.losses.regression import *  # noqa: F403
from combined_losses.losses.spectra import *  # noqa: F403

__all__ = [
    "Loss",
    *regression.__all__,
    *quantiles.__all__,
    *distributions.__all__,
    *classification.__all__,
    *regions.__all__,
    *boundaries.__all__,
    *images.__all__,
    *spectra.__all__,
    *boxes.__all__,
    *embeddings.__all__,
    *presets.__all__,
]
