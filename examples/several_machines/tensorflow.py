"""One training on several processes or machines of TensorFlow, each with its part of the data.

On one machine, in two terminals, as TensorFlow is told of its workers:

    export TF_CONFIG='{"cluster": {"worker": ["127.0.0.1:29801", "127.0.0.1:29802"]},
                       "task": {"type": "worker", "index": 0}}'     # index 1 in the second one
    KERAS_BACKEND=tensorflow python examples/several_machines/tensorflow.py

`fit` fails with `MultiWorkerMirroredStrategy` in Keras 3.15.1 itself, so this is a loop of its own.
Half of the labels are missing, in the first process nearly all of them: a mean of the means of the
processes would be wrong. Every process prints the same losses, those of one device with all data.
"""

import argparse
import json
import os
import sys

os.environ["KERAS_BACKEND"] = "tensorflow"
# Python looks in the folder of a script first, and this file is called like the framework.
sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]

import keras
import numpy as np
import tensorflow as tf

import combined_losses as cl


def data(process, count, rows=512):
    """This process's part of the data; labels that are missing are NaN."""
    rng = np.random.default_rng(process)
    x = rng.normal(size=(rows // count, 8)).astype("float32")
    y = np.stack([x[:, :4].sum(axis=1), np.abs(x[:, 4:]).sum(axis=1)], axis=1)
    y[rng.random(y.shape) < (0.9 if process == 0 else 0.3)] = np.nan
    return x, y


def build():
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(32, activation="relu"), keras.layers.Dense(2)]
    )
    loss = cl.CompositeLoss(
        {
            "fit": cl.wrappers.Masked("mse"),
            "under": cl.wrappers.Masked(cl.losses.UnderestimationPenalty()),
        },
        weighting=cl.weightings.MagnitudeBalance(max_weight=10.0),
    )
    optimizer = keras.optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)
    return model, loss, optimizer


def make_step(strategy, model, loss, optimizer):
    def on_each(x, y):
        with tf.GradientTape() as tape, loss.training_step():
            total = loss(y, model(x, training=True))
        gradients = tape.gradient(total, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)
        return total

    @tf.function
    def step(x, y):
        # Each process has its contribution to the loss of the whole batch: they add up to it.
        return strategy.reduce("SUM", strategy.run(on_each, args=(x, y)), axis=None)

    return step


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one epoch")
    args = parser.parse_args()
    config = json.loads(os.environ["TF_CONFIG"])
    process, count = config["task"]["index"], len(config["cluster"]["worker"])
    strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything of TensorFlow
    keras.utils.set_random_seed(0)  # all processes begin with the same weights
    with strategy.scope():
        model, loss, optimizer = build()
    step = make_step(strategy, model, loss, optimizer)
    x, y = data(process, count)
    size = 64 // count
    for _ in range(1 if args.quick else args.epochs):
        losses = [
            float(step(tf.constant(x[i : i + size]), tf.constant(y[i : i + size])))
            for i in range(0, len(x), size)
        ]
        loss.end_epoch()
    print(f"process {process} of {count}: loss {np.mean(losses):.5f}", flush=True)


if __name__ == "__main__":
    main()
