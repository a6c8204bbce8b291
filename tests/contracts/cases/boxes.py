"""Cases of `combined_losses.losses.boxes`."""

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case
from tests.oracles import boxes

NOT_A_FORMAT = ["", "XYXY", "rel_xyxy", "center_yxhw", ["xyxy"], *NOT_A_NUMBER]


def near(seed):
    """Three boxes for each of four samples, and predictions that miss them by about their size."""
    rng = np.random.default_rng(seed)
    begin, size = rng.uniform(0.0, 0.5, (2, 4, 3, 2)) + np.reshape([0.0, 0.1], (2, 1, 1, 1))
    centre = begin + size / 2 + rng.normal(scale=0.15, size=begin.shape)
    half = size * rng.uniform(0.5, 1.5, size.shape) / 2
    y_true = np.concatenate([begin, begin + size], axis=-1)
    y_pred = np.concatenate([centre - half, centre + half], axis=-1)
    return {"y_true": y_true.astype("float32"), "y_pred": y_pred.astype("float32")}


def case(loss, oracle, seed, format):
    arguments = {"format": format}
    refused = {"format": NOT_A_FORMAT}
    return Case(loss=loss, oracle=oracle, **near(seed), arguments=arguments, refused=refused)


CASES = [
    case(cl.losses.IoU, boxes.iou, seed=1, format="xywh"),
    case(cl.losses.GIoU, boxes.giou, seed=2, format="center_xywh"),
    case(cl.losses.DIoU, boxes.diou, seed=3, format="xywh"),
    case(cl.losses.CIoU, boxes.ciou, seed=4, format="center_xywh"),
]
