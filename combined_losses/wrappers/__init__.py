"""Wrappers: which part of the data a component sees. Each wraps any loss and nests in any other."""

from combined_losses.wrappers import (
    deep_supervision,
    masks,
    normalized,
    outputs,
    predictions,
    scales,
    slices,
)
from combined_losses.wrappers.base import Wrapper
from combined_losses.wrappers.deep_supervision import *  # noqa: F403
from combined_losses.wrappers.masks import *  # noqa: F403
from combined_losses.wrappers.normalized import *  # noqa: F403
from combined_losses.wrappers.outputs import *  # noqa: F403
from combined_losses.wrappers.predictions import *  # noqa: F403
from combined_losses.wrappers.scales import *  # noqa: F403
from combined_losses.wrappers.slices import *  # noqa: F403

__all__ = [
    "Wrapper",
    *slices.__all__,
    *masks.__all__,
    *outputs.__all__,
    *scales.__all__,
    *deep_supervision.__all__,
    *normalized.__all__,
    *predictions.__all__,
]
