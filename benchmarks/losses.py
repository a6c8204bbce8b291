"""What does a region, contour or focal loss cost, beside the same loss of a torch library?

Value and gradient of every pair, interleaved in one process after a warm-up: medians in ms of ours
and theirs, and the median of the ratios. Masks 8x256x256, class maps 8x128x128 of 3 classes; the
peers get channels first, as they want them. Run it with `KERAS_BACKEND=torch` and with `jax` (our
side compiled). The peers are not among the requirements of this package:

    pip install --no-deps monai==1.6.1 pytorch-toolbelt==0.8.0 opencv-python-headless

On 2 cores, Keras 3.15.1, torch 2.13.0, JAX 0.10.2:

                                      torch                        jax
                               ours   theirs  ratio       ours   theirs  ratio
    Dice                       1.00     0.28   3.39       0.42     0.28   1.50
    Dice, 3 classes            0.94     0.25   3.45       0.55     0.26   1.90
    dice_ce                    3.95     1.19   3.79       2.88     0.80   3.34
    Tversky                    0.92     0.59   1.57       0.40     0.53   0.74
    GeneralizedDice            1.07     0.32   3.13       0.65     0.37   1.65
    HausdorffDistance         64.01    88.91   0.72      29.05    88.19   0.34
    CenterlineDice           220.53   125.87   1.76     117.41   124.60   0.94
    LovaszHinge               26.08    39.05   0.68     107.85    38.83   2.78
    LovaszSoftmax             20.65    29.86   0.69      73.79    28.28   2.59
    BinaryFocal                2.89     2.30   1.24       2.52     2.22   1.07
    SparseCategoricalFocal     2.51     4.39   0.56       2.10     3.25   0.62

The overlap losses take sums of three products (no difference of large sums, as in the peer), and
0.15 ms for masks, weights and the reduction of this library. XLA's sort on a CPU takes most of the
time of the Lovász losses.
"""

import argparse
import ctypes
import os
import statistics
import sys
import time
import types
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import torch
from scipy.ndimage import gaussian_filter

import combined_losses as cl

warnings.filterwarnings("ignore")
# pytorch-toolbelt imports one function of torchvision, for its losses of boxes.
sys.modules["torchvision"] = types.ModuleType("torchvision")
sys.modules["torchvision.ops"] = types.SimpleNamespace(box_iou=None)

import monai.losses as monai  # noqa: E402
import pytorch_toolbelt.losses as toolbelt  # noqa: E402


def masks(rng):
    """Blobs, and noisy logits of them, `(8, 256, 256, 1)`."""
    field = np.stack([gaussian_filter(rng.normal(size=(256, 256)), 12) for _ in range(8)])[
        ..., None
    ]
    field /= field.std()
    logits = 3 * (field - 0.6 + 0.3 * rng.normal(size=field.shape))
    return (field > 0.8).astype("float32"), logits.astype("float32")


def classes(rng):
    """One-hot maps of three classes, and noisy logits of them, `(8, 128, 128, 3)`."""
    field = np.stack([gaussian_filter(rng.normal(size=(128, 128, 3)), (6, 6, 0)) for _ in range(8)])
    field /= field.std()
    y_true = np.eye(3, dtype="float32")[field.argmax(-1)]
    return y_true, (3 * field + rng.normal(size=field.shape)).astype("float32")


def probabilities(logits):
    if logits.shape[-1] == 1:
        return 1 / (1 + np.exp(-logits))
    return np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)


def labels(y_true):
    return y_true.argmax(-1).astype("int64")


# Name: data, whether logits, ours, theirs, and whether the targets are integer labels.
PAIRS = {
    "Dice": (masks, False, cl.losses.Dice, lambda: monai.DiceLoss(smooth_nr=1.0, smooth_dr=1.0)),
    "Dice, 3 classes": (
        classes,
        False,
        cl.losses.Dice,
        lambda: monai.DiceLoss(smooth_nr=1.0, smooth_dr=1.0),
    ),
    "dice_ce": (
        classes,
        True,
        lambda: cl.losses.dice_ce(from_logits=True),
        lambda: monai.DiceCELoss(softmax=True, smooth_nr=1.0, smooth_dr=1.0),
    ),
    "Tversky": (
        masks,
        False,
        lambda: cl.losses.Tversky(0.3, 0.7),
        lambda: monai.TverskyLoss(alpha=0.3, beta=0.7, smooth_nr=1.0, smooth_dr=1.0),
    ),
    "GeneralizedDice": (
        classes,
        False,
        cl.losses.GeneralizedDice,
        monai.GeneralizedDiceLoss,
    ),
    "HausdorffDistance": (masks, False, cl.losses.HausdorffDistance, monai.HausdorffDTLoss),
    "CenterlineDice": (
        masks,
        False,
        cl.losses.CenterlineDice,
        lambda: monai.SoftclDiceLoss(iter_=3),
    ),
    "LovaszHinge": (
        masks,
        True,
        cl.losses.LovaszHinge,
        lambda: toolbelt.BinaryLovaszLoss(per_image=True),
    ),
    "LovaszSoftmax": (
        classes,
        False,
        cl.losses.LovaszSoftmax,
        lambda: toolbelt.LovaszLoss(per_image=True),
    ),
    "BinaryFocal": (
        masks,
        True,
        lambda: cl.losses.BinaryFocal(from_logits=True),
        lambda: toolbelt.BinaryFocalLoss(gamma=2.0),
    ),
    "SparseCategoricalFocal": (
        classes,
        True,
        lambda: cl.losses.SparseCategoricalFocal(from_logits=True),
        lambda: toolbelt.CrossEntropyFocalLoss(gamma=2.0),
    ),
}
OF_LABELS = ("LovaszSoftmax", "SparseCategoricalFocal")  # of the peer; of ours the sparse one only


def theirs(name, y_true, y_pred):
    """A function that computes value and gradient of the peer."""
    loss = PAIRS[name][3]()
    target = labels(y_true) if name in OF_LABELS else np.moveaxis(y_true, -1, 1)
    target = torch.tensor(np.ascontiguousarray(target))
    pred = torch.tensor(np.ascontiguousarray(np.moveaxis(y_pred, -1, 1)), requires_grad=True)
    return lambda: torch.autograd.grad(loss(pred, target), pred)


def ours(name, y_true, y_pred):
    """A function that computes value and gradient of ours."""
    loss = PAIRS[name][2]()
    target = labels(y_true).astype("int32") if name.startswith("Sparse") else y_true
    if keras.backend.backend() == "torch":
        target, pred = torch.tensor(target), torch.tensor(y_pred, requires_grad=True)
        return lambda: torch.autograd.grad(loss(target, pred), pred)
    import jax

    step = jax.jit(jax.value_and_grad(lambda p, t: loss(t, p)))
    target, pred = jax.device_put(target), jax.device_put(y_pred)
    return lambda: jax.block_until_ready(step(pred, target))


def interleaved(functions, seconds):
    """Times of both, in turns of five calls, for about so long.

    Threads of one framework wait for work in a loop, which would take a core from the other: each
    turn starts when they sleep, and with a call that does not count.
    """
    times = [[], []]
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 15:
        for function, found in zip(functions, times, strict=True):
            time.sleep(0.05)
            function()
            for _ in range(5):
                start = time.perf_counter()
                function()
                found.append(time.perf_counter() - start)
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=4.0, help="for each pair")
    parser.add_argument("--only", default="", help="pairs whose name begins so")
    arguments = parser.parse_args()
    torch.set_num_threads(os.cpu_count())
    # By default glibc gives arrays of this size back to the system and faults them in again, now
    # and then: up to three times the time of a small loss, of either side. Not here.
    libc = ctypes.CDLL("libc.so.6")
    libc.mallopt(-1, 2**30), libc.mallopt(-3, 2**30)  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    backend = keras.backend.backend()
    print(
        f"{backend}, keras {keras.__version__}, torch {torch.__version__}, {os.cpu_count()} cores"
    )
    for name, (data, from_logits, *_) in PAIRS.items():
        if not name.startswith(arguments.only):
            continue
        y_true, logits = data(np.random.default_rng(0))
        y_pred = logits if from_logits else probabilities(logits)
        pair = (ours(name, y_true, y_pred), theirs(name, y_true, y_pred))
        mine, other = interleaved(pair, arguments.seconds)
        ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
        a, b = 1e3 * statistics.median(mine), 1e3 * statistics.median(other)
        print(f"    {name:24}{a:9.2f}{b:9.2f}{ratio:8.2f}", flush=True)


if __name__ == "__main__":
    main()
