"""What does a domain loss cost, beside the same loss of a torch library?

Value and gradient of every pair, interleaved in one process after a warm-up: medians in ms of ours
and theirs, and the median of the ratios. Masks and images 8x256x256, class maps 8x128x128 of 3
classes, 8 signals of 24000 steps, 512 embeddings of 128; the peers get channels first, as they want
them. Run it with `KERAS_BACKEND=torch` and with `jax` (our side compiled). The peers are not among
the requirements of this package:

    pip install --no-deps monai==1.6.1 pytorch-toolbelt==0.8.0 opencv-python-headless
    pip install --no-deps auraloss==0.4.0 pytorch-msssim==1.0.0 pytorch-metric-learning==2.9.0

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
    SSIM                      48.23   111.78   0.43      25.55   107.92   0.24
    SSIM, strided peer        45.69    38.47   1.18      36.17    36.99   0.98
    SSIM, 1 channel           16.54    85.20   0.19       5.54    91.39   0.06
    MultiScaleSSIM            72.64   138.71   0.53      52.05   137.62   0.37
    MultiScaleSSIM, strided   74.20    54.17   1.35      51.61    54.48   0.96
    MultiScaleSSIM, 1 chan.   29.72   112.64   0.28       9.15   121.03   0.08
    STFT                       7.80     8.46   0.91       3.91     9.62   0.41
    MultiResolutionSTFT       43.79    63.02   0.71      41.46    65.47   0.62
    SISDR                      0.58     0.46   1.28       0.29     0.51   0.54
    GIoU, 4096 boxes           0.52     0.66   0.82       0.14     0.65   0.21
    DIoU, 4096 boxes           0.54     0.74   0.73       0.13     0.74   0.18
    CIoU, 4096 boxes           0.71     0.85   0.83       0.21     0.85   0.25
    GIoU, 65536 boxes          1.23     4.18   0.28       0.97     4.25   0.20
    DIoU, 65536 boxes          1.37     4.42   0.31       0.84     4.39   0.17
    CIoU, 65536 boxes          1.94     5.18   0.37       2.15     6.61   0.33
    Contrastive                3.94     5.44   0.75       1.56     4.95   0.33
    ContrastivePairs           3.69     4.14   0.89       1.73     4.21   0.41
    TripletSemiHard           20.00   110.86   0.18      39.08   107.37   0.37
    NTXent                     3.13  1273.13   0.00       1.77  1320.10   0.00
    SupervisedContrastive      2.54     3.90   0.65       1.87     5.74   0.34

The overlap losses take sums of three products (no difference of large sums, as in the peer), and
0.15 ms for masks, weights and the reduction of this library. XLA's sort on a CPU takes most of the
time of the Lovász losses. pytorch-msssim wants channels first; of channels-last memory seen so
("strided") torch's convolutions are two to three times as fast. The peers of ContrastivePairs and
TripletSemiHard measure something like it, see `pairs/embeddings.py`. Close pairs in a batch make
the losses of distances slower: alone 10 ms on torch and 41 ms on JAX.
"""

import argparse
import ctypes
import importlib
import os
import pkgutil
import statistics
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pairs
import torch

warnings.filterwarnings("ignore")


def ours(pair, y_true, y_pred):
    """A function that computes value and gradient of ours."""
    loss = pair.ours()
    if keras.backend.backend() == "torch":
        return pairs.value_and_gradient(loss, y_true, y_pred)
    import jax

    step = jax.jit(jax.value_and_grad(lambda p, t: loss(t, p)))
    target, pred = jax.device_put(y_true), jax.device_put(y_pred)
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
    parser.add_argument("--family", help="a file of `pairs/`; default: all of them")
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
    families = [arguments.family] if arguments.family else names_of_families()
    for family in families:
        for name, pair in importlib.import_module(f"pairs.{family}").PAIRS.items():
            if name.startswith(arguments.only):
                print_row(name, pair, arguments.seconds)


def names_of_families():
    return [module.name for module in pkgutil.iter_modules(pairs.__path__)]


def print_row(name, pair, seconds):
    y_true, y_pred = pair.data(np.random.default_rng(0))
    theirs = pairs.value_and_gradient(pair.theirs(), *pair.to_theirs(y_true, y_pred))
    mine, other = interleaved((ours(pair, y_true, y_pred), theirs), seconds)
    ratio = statistics.median(a / b for a, b in zip(mine, other, strict=True))
    a, b = 1e3 * statistics.median(mine), 1e3 * statistics.median(other)
    print(f"    {name:24}{a:9.2f}{b:9.2f}{ratio:8.2f}", flush=True)


if __name__ == "__main__":
    main()
