"""One training on several processes or machines of torch, each with its part of the data.

On one machine with two processes, as torch starts them:

    KERAS_BACKEND=torch torchrun --nproc-per-node=2 examples/several_machines/torch.py

On two machines, the same command on both:

    torchrun --nnodes=2 --nproc-per-node=1 --rdzv-backend=c10d --rdzv-endpoint=FIRST:29500 ...

Half of the labels are missing, on the first process nearly all of them: a mean of the means of the
processes would be wrong. Every process prints the same logs, those of one device with all data.
"""

import argparse
import os
import sys

os.environ["KERAS_BACKEND"] = "torch"
# Python looks in the folder of a script first, and this file is called like the framework.
sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]

import keras
import numpy as np
import torch

import combined_losses as cl


def data(rank, count, rows=512):
    """This process's part of the data; labels that are missing are NaN."""
    rng = np.random.default_rng(rank)
    x = rng.normal(size=(rows // count, 8)).astype("float32")
    y = np.stack([x[:, :4].sum(axis=1), np.abs(x[:, 4:]).sum(axis=1)], axis=1)
    y[rng.random(y.shape) < (0.9 if rank == 0 else 0.3)] = np.nan
    return x, y


def build():
    model = cl.Sequential(
        [keras.Input((8,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(2)]
    )
    loss = cl.CompositeLoss(
        {
            "fit": cl.wrappers.Masked("mse"),
            "under": cl.wrappers.Masked(cl.losses.UnderestimationPenalty()),
        },
        weighting=cl.weightings.MagnitudeBalance(max_weight=10.0),
    )
    model.compile(keras.optimizers.Adam(0.01), loss=loss)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one epoch")
    args = parser.parse_args()
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    rank, count = torch.distributed.get_rank(), torch.distributed.get_world_size()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    x, y = data(rank, count)
    model = build()  # `fit` gives all processes the weights of the first one
    epochs = 1 if args.quick else args.epochs
    history = model.fit(x, y, epochs=epochs, batch_size=64 // count, verbose=0).history
    last = {key: round(values[-1], 5) for key, values in history.items()}
    print(f"process {rank} of {count}: {last}", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
