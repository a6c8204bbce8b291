"""Boxes: how far predicted bounding boxes are from the true ones. One value for each box.

`overlap.py` compares areas, centres and aspect ratios, `sides.py` widths and heights one by one,
`bins.py` a single edge whose place is predicted as a distribution.
"""

from combined_losses.losses.boxes.bins import DistributionFocal
from combined_losses.losses.boxes.overlap import CIoU, DIoU, GIoU, IoU
from combined_losses.losses.boxes.sides import EIoU, SIoU

__all__ = ["CIoU", "DIoU", "DistributionFocal", "EIoU", "GIoU", "IoU", "SIoU"]
