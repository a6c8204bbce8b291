"""Classification: classes against probabilities or logits.

`focal.py`, `asymmetric.py` and `polynomial.py` compare them one by one, `quality.py` with labels
that say how good an object is, `ordinal.py` by their order.
"""

from combined_losses.losses.classification.asymmetric import AsymmetricFocal
from combined_losses.losses.classification.focal import (
    BinaryFocal,
    CategoricalFocal,
    SparseCategoricalFocal,
)
from combined_losses.losses.classification.ordinal import WeightedKappa
from combined_losses.losses.classification.polynomial import PolyCrossEntropy
from combined_losses.losses.classification.quality import QualityFocal, Varifocal

__all__ = [
    "AsymmetricFocal",
    "BinaryFocal",
    "CategoricalFocal",
    "PolyCrossEntropy",
    "QualityFocal",
    "SparseCategoricalFocal",
    "Varifocal",
    "WeightedKappa",
]
