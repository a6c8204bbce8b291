"""Wrappers: which part of the data a component sees. Each wraps any loss and nests in any other."""

from combined_losses.wrappers.base import Wrapper
from combined_losses.wrappers.channels import PerChannel
from combined_losses.wrappers.deep_supervision import DeepSupervision
from combined_losses.wrappers.elements import PerElement
from combined_losses.wrappers.hardest import Hardest
from combined_losses.wrappers.inputs import OnInputs
from combined_losses.wrappers.masks import ClassWeighted, Masked, OneHot
from combined_losses.wrappers.matched import Matched
from combined_losses.wrappers.normalized import Normalized
from combined_losses.wrappers.outputs import OnOutput
from combined_losses.wrappers.permuted import Permuted
from combined_losses.wrappers.positives import NormalizedByPositives
from combined_losses.wrappers.predictions import Activated, PredictionOnly, StopGradient
from combined_losses.wrappers.scales import MultiScale
from combined_losses.wrappers.slices import OnSlice, Scaled

__all__ = [
    "Activated",
    "ClassWeighted",
    "DeepSupervision",
    "Hardest",
    "Masked",
    "Matched",
    "MultiScale",
    "Normalized",
    "NormalizedByPositives",
    "OnInputs",
    "OnOutput",
    "OnSlice",
    "OneHot",
    "PerChannel",
    "PerElement",
    "Permuted",
    "PredictionOnly",
    "Scaled",
    "StopGradient",
    "Wrapper",
]


def __dir__() -> list[str]:
    return __all__
