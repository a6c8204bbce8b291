"""Classification: classes against probabilities or logits.

`focal.py`, `asymmetric.py` and `polynomial.py` compare them one by one, `ordinal.py` by their
order.
"""

from combined_losses.losses.classification.asymmetric import AsymmetricFocal
from combined_losses.losses.classification.focal import (
    BinaryFocal,
    CategoricalFocal,
    SparseCategoricalFocal,
)
from combined_losses.losses.classification.ordinal import WeightedKappa
from combined_losses.losses.classification.polynomial import PolyCrossEntropy

__all__ = [
    "AsymmetricFocal",
    "BinaryFocal",
    "CategoricalFocal",
    "PolyCrossEntropy",
    "SparseCategoricalFocal",
    "WeightedKappa",
]
