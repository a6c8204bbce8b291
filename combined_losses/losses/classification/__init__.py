"""Classification: classes against probabilities or logits.

`focal.py` compares them one by one, `ordinal.py` by their order.
"""

from combined_losses.losses.classification.focal import (
    BinaryFocal,
    CategoricalFocal,
    SparseCategoricalFocal,
)
from combined_losses.losses.classification.ordinal import WeightedKappa

__all__ = ["BinaryFocal", "CategoricalFocal", "SparseCategoricalFocal", "WeightedKappa"]
