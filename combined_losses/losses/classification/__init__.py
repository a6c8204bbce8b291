"""Classification: classes against probabilities or logits.

`focal.py`, `asymmetric.py` and `polynomial.py` compare them one by one, `quality.py` with labels
that say how good an object is, `ordinal.py` and `kappa.py` by their order, `trees.py` by their
groups, `margins.py` by the angle to their centres, `tokens.py` where there are thousands.
"""

from combined_losses.losses.classification.asymmetric import AsymmetricFocal
from combined_losses.losses.classification.focal import (
    BinaryFocal,
    CategoricalFocal,
    SparseCategoricalFocal,
)
from combined_losses.losses.classification.kappa import WeightedKappa
from combined_losses.losses.classification.margins import ArcFace, CosFace
from combined_losses.losses.classification.ordinal import Ordinal
from combined_losses.losses.classification.polynomial import PolyCrossEntropy
from combined_losses.losses.classification.quality import QualityFocal, Varifocal
from combined_losses.losses.classification.tokens import Distillation, SparseCrossEntropy, ZLoss
from combined_losses.losses.classification.trees import TreeCrossEntropy

__all__ = [
    "ArcFace",
    "AsymmetricFocal",
    "BinaryFocal",
    "CategoricalFocal",
    "CosFace",
    "Distillation",
    "Ordinal",
    "PolyCrossEntropy",
    "QualityFocal",
    "SparseCategoricalFocal",
    "SparseCrossEntropy",
    "TreeCrossEntropy",
    "Varifocal",
    "WeightedKappa",
    "ZLoss",
]
