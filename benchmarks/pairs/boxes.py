"""Boxes, beside the losses of torchvision, which are written here anew: it is not installed.

The peers do what torchvision 0.2x's `generalized_box_iou_loss`, `distance_box_iou_loss` and
`complete_box_iou_loss` do (torchvision/ops/{giou,diou,ciou}_loss.py, BSD 3-Clause), step by step:
columns by `unbind`, the intersection written through a mask of the boxes that meet, 1e-7 in every
denominator, and two arctangents of width / height.

Neither `EIoU` nor `SIoU` has a library that is installed: the peers are what detectors write out
beside the above (YOLOv5 and its kin), SIoU by the sine and arcsine of its paper. That of
`DistributionFocal` is `distribution_focal_loss` of mmdetection: two cross-entropies.
"""

import math

import numpy as np
import torch

import combined_losses as cl
from pairs import Pair

EPSILON = 1e-7


def boxes(number):
    """Boxes in [0, 1], and predictions whose corners are some 0.05 off."""

    def data(rng):
        begin, size = rng.uniform(0.0, 0.6, (number, 2)), rng.uniform(0.1, 0.4, (number, 2))
        y_true = np.concatenate([begin, begin + size], axis=-1)
        y_pred = y_true + rng.normal(scale=0.05, size=y_true.shape)
        # None is inverted: the peers would not take it.
        y_pred[:, 2:] = np.maximum(y_pred[:, 2:], y_pred[:, :2] + 0.02)
        return y_true.astype("float32"), y_pred.astype("float32")

    return data


def intersection_and_union(pred, true):
    px1, py1, px2, py2 = pred
    tx1, ty1, tx2, ty2 = true
    left, top = torch.max(px1, tx1), torch.max(py1, ty1)
    right, bottom = torch.min(px2, tx2), torch.min(py2, ty2)
    shared = torch.zeros_like(px1)
    meet = (bottom > top) & (right > left)
    shared[meet] = (right[meet] - left[meet]) * (bottom[meet] - top[meet])
    return shared, (px2 - px1) * (py2 - py1) + (tx2 - tx1) * (ty2 - ty1) - shared


def enclosing_sides(pred, true):
    (px1, py1, px2, py2), (tx1, ty1, tx2, ty2) = pred, true
    left, top = torch.min(px1, tx1), torch.min(py1, ty1)
    right, bottom = torch.max(px2, tx2), torch.max(py2, ty2)
    return right - left, bottom - top


def giou(y_true, y_pred):
    pred, true = y_pred.unbind(dim=-1), y_true.unbind(dim=-1)
    shared, union = intersection_and_union(pred, true)
    width, height = enclosing_sides(pred, true)
    area = width * height
    return (1 - (shared / (union + EPSILON) - (area - union) / (area + EPSILON))).mean()


def diou_and_iou(pred, true):
    shared, union = intersection_and_union(pred, true)
    iou = shared / (union + EPSILON)
    width, height = enclosing_sides(pred, true)
    diagonal = width**2 + height**2 + EPSILON
    x, y = ((pred[i] + pred[i + 2]) / 2 - (true[i] + true[i + 2]) / 2 for i in (0, 1))
    return 1 - iou + (x**2 + y**2) / diagonal, iou


def diou(y_true, y_pred):
    return diou_and_iou(y_pred.unbind(dim=-1), y_true.unbind(dim=-1))[0].mean()


def ciou(y_true, y_pred):
    pred, true = y_pred.unbind(dim=-1), y_true.unbind(dim=-1)
    value, iou = diou_and_iou(pred, true)
    of_true, of_pred = (torch.atan((b[2] - b[0]) / (b[3] - b[1])) for b in (true, pred))
    v = (4 / math.pi**2) * torch.pow(of_true - of_pred, 2)
    with torch.no_grad():
        alpha = v / (1 - iou + v + EPSILON)
    return (value + alpha * v).mean()


def eiou(y_true, y_pred):
    pred, true = y_pred.unbind(dim=-1), y_true.unbind(dim=-1)
    value, _ = diou_and_iou(pred, true)
    for side, whole in zip((0, 1), enclosing_sides(pred, true), strict=True):
        miss = (pred[side + 2] - pred[side]) - (true[side + 2] - true[side])
        value = value + miss**2 / (whole**2 + EPSILON)
    return value.mean()


def siou(y_true, y_pred):
    pred, true = y_pred.unbind(dim=-1), y_true.unbind(dim=-1)
    shared, union = intersection_and_union(pred, true)
    width, height = enclosing_sides(pred, true)
    dx, dy = ((true[i] + true[i + 2] - pred[i] - pred[i + 2]) / 2 for i in (0, 1))
    sine = dy.abs() / torch.sqrt(dx**2 + dy**2 + EPSILON)
    gamma = 1 + 2 * torch.sin(torch.arcsin(sine) - math.pi / 4) ** 2
    distance = 2 - torch.exp(-gamma * (dx / width) ** 2) - torch.exp(-gamma * (dy / height) ** 2)
    shape = torch.zeros_like(dx)
    for i in (0, 1):
        of_pred, of_true = pred[i + 2] - pred[i], true[i + 2] - true[i]
        unlike = (of_pred - of_true).abs() / torch.max(of_pred, of_true)
        shape = shape + torch.pow(1 - torch.exp(-unlike), 4)
    return (1 - shared / (union + EPSILON) + (distance + shape) / 2).mean()


def edges(rng):
    """The four edges of 4096 boxes, over 17 bins."""
    y_true, y_pred = rng.uniform(0, 15.9, (4096, 4)), rng.normal(size=(4096, 4, 17))
    return y_true.astype("float32"), y_pred.astype("float32")


def distribution_focal(y_true, y_pred):
    label, logits = y_true.reshape(-1), y_pred.reshape(-1, y_pred.shape[-1])
    left = label.long()
    right = left + 1
    of_left = torch.nn.functional.cross_entropy(logits, left, reduction="none")
    of_right = torch.nn.functional.cross_entropy(logits, right, reduction="none")
    return (of_left * (right.float() - label) + of_right * (label - left.float())).mean()


LOSSES = {"GIoU": (cl.losses.GIoU, giou), "DIoU": (cl.losses.DIoU, diou)}
LOSSES["CIoU"] = (cl.losses.CIoU, ciou)
LOSSES |= {"EIoU": (cl.losses.EIoU, eiou), "SIoU": (cl.losses.SIoU, siou)}
PAIRS = {
    f"{name}, {number} boxes": Pair(boxes(number), ours, lambda theirs=theirs: theirs)
    for number in (4096, 65536)
    for name, (ours, theirs) in LOSSES.items()
}
PAIRS["DistributionFocal, 4096 x 4 edges"] = Pair(
    edges, lambda: cl.losses.DistributionFocal(from_logits=True), lambda: distribution_focal
)
