"""One training on several processes or machines of JAX, each with its part of the data.

On one machine, in two terminals:

    KERAS_BACKEND=jax python examples/several_machines/jax.py --process 0
    KERAS_BACKEND=jax python examples/several_machines/jax.py --process 1

On two machines, the first of which is called FIRST, with `--addresses FIRST:29700,SECOND:29700`.

Half of the labels are missing, in the first process nearly all of them: a mean of the means of the
processes would be wrong. Every process prints the same logs, those of one device with all data.
"""

import argparse
import os
import sys

os.environ["KERAS_BACKEND"] = "jax"
# Python looks in the folder of a script first, and this file is called like the framework.
sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]

import keras
import numpy as np

import combined_losses as cl


def data(process, count, rows=512):
    """This process's part of the data; labels that are missing are NaN."""
    rng = np.random.default_rng(process)
    x = rng.normal(size=(rows // count, 8)).astype("float32")
    y = np.stack([x[:, :4].sum(axis=1), np.abs(x[:, 4:]).sum(axis=1)], axis=1)
    y[rng.random(y.shape) < (0.9 if process == 0 else 0.3)] = np.nan
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
    parser.add_argument("--process", type=int, required=True, help="the number of this process")
    parser.add_argument("--addresses", default="127.0.0.1:29701,127.0.0.1:29702")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one epoch")
    args = parser.parse_args()
    count = len(args.addresses.split(","))
    keras.distribution.initialize(args.addresses, count, args.process)
    devices = keras.distribution.list_devices()
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=devices, auto_shard_dataset=False)
    )
    keras.utils.set_random_seed(0)  # all processes begin with the same weights
    x, y = data(args.process, count)
    model = build()
    epochs = 1 if args.quick else args.epochs
    history = model.fit(
        x, y, epochs=epochs, batch_size=64 // count, shuffle=False, verbose=0
    ).history
    last = {key: round(float(values[-1]), 5) for key, values in history.items()}
    print(f"process {args.process} of {count}: {last}", flush=True)


if __name__ == "__main__":
    main()
