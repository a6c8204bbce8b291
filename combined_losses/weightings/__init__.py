"""Weightings: rules that give the weights of the components of a composite."""

from combined_losses.weightings.base import Weighting
from combined_losses.weightings.directions import IMTLG, AlignedMTL, ConFIG, FairGrad, NashMTL
from combined_losses.weightings.fixed import Average, RandomWeighting, Worst
from combined_losses.weightings.gramian import GramianWeighting
from combined_losses.weightings.learned import UncertaintyWeighting
from combined_losses.weightings.magnitudes import CoVWeighting, GeometricMean, MagnitudeBalance
from combined_losses.weightings.norms import GradientNormBalance, GradNorm, InverseGradientNorm
from combined_losses.weightings.projections import MGDA, CAGrad, DualProj, PCGrad, UPGrad
from combined_losses.weightings.rates import FAMO, DynamicWeightAverage, ReLoBRaLo, SoftAdapt
from combined_losses.weightings.schedules import Cyclical, LinearRamp, Sigmoid
from combined_losses.weightings.smoothed import Smoothed

__all__ = [
    "FAMO",
    "IMTLG",
    "MGDA",
    "AlignedMTL",
    "Average",
    "CAGrad",
    "CoVWeighting",
    "ConFIG",
    "Cyclical",
    "DualProj",
    "DynamicWeightAverage",
    "FairGrad",
    "GeometricMean",
    "GradNorm",
    "GradientNormBalance",
    "GramianWeighting",
    "InverseGradientNorm",
    "LinearRamp",
    "MagnitudeBalance",
    "NashMTL",
    "PCGrad",
    "RandomWeighting",
    "ReLoBRaLo",
    "Sigmoid",
    "Smoothed",
    "SoftAdapt",
    "UPGrad",
    "UncertaintyWeighting",
    "Weighting",
    "Worst",
]


def __dir__() -> list[str]:
    return __all__
