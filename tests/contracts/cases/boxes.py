"""Cases of `combined_losses.losses.boxes`."""

import numpy as np

import combined_losses as cl
from tests.contracts.case import NOT_A_NUMBER, Case
from tests.contracts.cases.classification import probabilities
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


def case(loss, oracle, seed, format, refused=None, **arguments):
    arguments = {"format": format, **arguments}
    refused = {"format": NOT_A_FORMAT, **(refused or {})}
    return Case(loss=loss, oracle=oracle, **near(seed), arguments=arguments, refused=refused)


CASES = [
    case(cl.losses.IoU, boxes.iou, seed=1, format="xywh"),
    case(cl.losses.GIoU, boxes.giou, seed=2, format="center_xywh"),
    case(cl.losses.DIoU, boxes.diou, seed=3, format="xywh"),
    case(cl.losses.CIoU, boxes.ciou, seed=4, format="center_xywh"),
    case(cl.losses.EIoU, boxes.eiou, seed=5, format="xywh"),
    case(
        cl.losses.SIoU,
        boxes.siou,
        seed=6,
        format="center_xywh",
        theta=1.5,
        refused={"theta": [0.9, *NOT_A_NUMBER]},
    ),
    Case(
        loss=cl.losses.DistributionFocal,
        oracle=boxes.distribution_focal,
        y_true=np.random.default_rng(7).uniform(-1.4, 2.4, (4, 3, 1)).astype("float32"),
        y_pred=probabilities(4, 3, 5, seed=8),
        arguments={"low": -1.0, "high": 2.2, "from_logits": True},
        refused={
            "low": NOT_A_NUMBER,
            "high": [0.0, -1, *NOT_A_NUMBER[:-1]],
            "from_logits": [0, 1, None, "yes"],
        },
        perfect=lambda y_true: np.eye(5, dtype="float32")[
            np.clip(np.rint(y_true[..., 0]), 0, 4).astype(int)
        ],
    ),
]
