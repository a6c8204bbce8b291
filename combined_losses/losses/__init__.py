"""Domain losses: `y_true, y_pred` in, one value for each sample (or element) out."""

from combined_losses._core.loss import Loss
from combined_losses.losses.boundaries import BoundaryDisagreement, SobelEdge
from combined_losses.losses.boxes import CIoU, DIoU, DistributionFocal, EIoU, GIoU, IoU, SIoU
from combined_losses.losses.classification import (
    AsymmetricFocal,
    BinaryFocal,
    CategoricalFocal,
    PolyCrossEntropy,
    QualityFocal,
    SparseCategoricalFocal,
    Varifocal,
    WeightedKappa,
)
from combined_losses.losses.contours import (
    HausdorffDistance,
    SignedDistanceBoundary,
    distance_maps,
    signed_distance,
)
from combined_losses.losses.distributions import (
    BetaNLL,
    EnergyScore,
    EnsembleCRPS,
    GaussianCRPS,
    GaussianKL,
    GaussianNLL,
    LaplaceNLL,
    LogNormalNLL,
    MixtureNLL,
    NegativeBinomialNLL,
    StudentTNLL,
)
from combined_losses.losses.embeddings import (
    Contrastive,
    ContrastivePairs,
    NTXent,
    SupervisedContrastive,
    TripletSemiHard,
)
from combined_losses.losses.images import (
    SSIM,
    MultiScaleSSIM,
    PeakSignalToNoise,
    Perceptual,
    TotalVariation,
)
from combined_losses.losses.presets import (
    combo,
    dice_bce,
    dice_ce,
    dice_focal,
    generalized_dice_focal,
    unified_focal,
)
from combined_losses.losses.quantiles import Pinball, QuantileCRPS
from combined_losses.losses.regions import (
    CenterlineDice,
    Dice,
    FocalTversky,
    GeneralizedDice,
    Jaccard,
    LovaszHinge,
    LovaszSoftmax,
    MatthewsCorrelation,
    Tversky,
)
from combined_losses.losses.regression import (
    AsymmetricError,
    Charbonnier,
    Expectile,
    Linex,
    UnderestimationPenalty,
)
from combined_losses.losses.samples import MMD, Sinkhorn, SlicedWasserstein
from combined_losses.losses.spectra import SISDR, STFT, MultiResolutionSTFT

__all__ = [
    "MMD",
    "SISDR",
    "SSIM",
    "STFT",
    "AsymmetricError",
    "AsymmetricFocal",
    "BetaNLL",
    "BinaryFocal",
    "BoundaryDisagreement",
    "CIoU",
    "CategoricalFocal",
    "CenterlineDice",
    "Charbonnier",
    "Contrastive",
    "ContrastivePairs",
    "DIoU",
    "Dice",
    "DistributionFocal",
    "EIoU",
    "EnergyScore",
    "EnsembleCRPS",
    "Expectile",
    "FocalTversky",
    "GIoU",
    "GaussianCRPS",
    "GaussianKL",
    "GaussianNLL",
    "GeneralizedDice",
    "HausdorffDistance",
    "IoU",
    "Jaccard",
    "LaplaceNLL",
    "Linex",
    "LogNormalNLL",
    "Loss",
    "LovaszHinge",
    "LovaszSoftmax",
    "MatthewsCorrelation",
    "MixtureNLL",
    "MultiResolutionSTFT",
    "MultiScaleSSIM",
    "NTXent",
    "NegativeBinomialNLL",
    "PeakSignalToNoise",
    "Perceptual",
    "Pinball",
    "PolyCrossEntropy",
    "QualityFocal",
    "QuantileCRPS",
    "SIoU",
    "SignedDistanceBoundary",
    "Sinkhorn",
    "SlicedWasserstein",
    "SobelEdge",
    "SparseCategoricalFocal",
    "StudentTNLL",
    "SupervisedContrastive",
    "TotalVariation",
    "TripletSemiHard",
    "Tversky",
    "UnderestimationPenalty",
    "Varifocal",
    "WeightedKappa",
    "combo",
    "dice_bce",
    "dice_ce",
    "dice_focal",
    "distance_maps",
    "generalized_dice_focal",
    "signed_distance",
    "unified_focal",
]


def __dir__() -> list[str]:
    return __all__
