"""One process of a training that is killed, and goes on: every rule at an output of its own.

    python -m tests.engines.resuming FOLDER HOW RULES

HOW is "whole", or "killed": the last process kills itself in the middle of the third epoch of four,
if there are no files of a run before; else all go on from them. The environment is that of
`starting.ENGINES`. At the end the process writes all numbers of its model to `HOW_PROCESS.npz`.
"""

import contextlib
import importlib
import os
import signal
import sys
from pathlib import Path

import keras
import numpy as np
from keras import ops

import combined_losses as cl
from tests.engines.cases import MAKE_RULE

ENGINES = {"torch": "ranks", "tensorflow": "replicas", "jax": "devices"}
EPOCHS, ROWS, SAMPLES = 4, 4, 12  # of each batch, of all


def data(names):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(SAMPLES, 4)).astype("float32")
    y = rng.normal(size=(SAMPLES, 2)).astype("float32")
    y[rng.random(y.shape) < 0.3] = np.nan
    return x, {name: y * (1 + i) for i, name in enumerate(names)}


def build(names):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(6, activation="tanh")(inputs)
    outputs = {name: keras.layers.Dense(2, name=name)(hidden) for name in names}
    losses = {
        name: cl.CompositeLoss(
            {"squared": cl.wrappers.Masked("mse"), "absolute": cl.wrappers.Masked("mae")},
            weighting=MAKE_RULE[name](),
        )
        for name in names
    }
    model = cl.Model(inputs, outputs)
    model.compile(keras.optimizers.Adam(0.05), loss=losses)
    model.optimizer.build(model.trainable_variables)  # else Keras cannot load its variables
    return model


class Kill(keras.callbacks.Callback):
    """Kills this process in the middle of the third epoch."""

    epoch = None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.epoch == 2 and batch == 1:
            os.kill(os.getpid(), signal.SIGKILL)


def fit(engine, model, names, folder, callbacks):
    """`fit` from the last file on, on this process's rows; each process has files of its own.

    On JAX all must write: to bring the state back from the devices is an act of all processes.
    """
    folder = folder / str(engine.process)
    folder.mkdir(exist_ok=True)
    first = restored(model, folder)
    path = folder / "{epoch}.weights.h5"
    callbacks = [keras.callbacks.ModelCheckpoint(path, save_weights_only=True), *callbacks]
    x, y = data(names)
    own = slice(engine.process, None, engine.processes)
    model.fit(
        *(x[own], {name: array[own] for name, array in y.items()}),
        batch_size=ROWS // engine.processes,
        initial_epoch=first,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=callbacks,
    )


def loop(engine, model, names, folder, callbacks):
    """The same by a loop of one's own, for the workers of TensorFlow; each writes its own files."""
    import tensorflow as tf

    folder = folder / str(engine.process)
    folder.mkdir(exist_ok=True)

    def on_each(x, y):
        with tf.GradientTape() as tape, contextlib.ExitStack() as stack:
            for loss in model.loss.values():
                stack.enter_context(loss.training_step())
            outputs = model(x, training=True)
            total = sum(loss(y[name], outputs[name]) for name, loss in model.loss.items())
        gradients = tape.gradient(total, model.trainable_variables)
        model.optimizer.apply(gradients, model.trainable_variables)

    step = tf.function(lambda *part: engine.strategy.run(on_each, part), autograph=False)
    size = ROWS // engine.processes
    x, y = tf.nest.map_structure(lambda a: a[engine.process :: engine.processes], data(names))
    for epoch in range(restored(model, folder), EPOCHS):
        for callback in callbacks:
            callback.on_epoch_begin(epoch)
        for batch, start in enumerate(range(0, len(x), size)):
            step(*tf.nest.map_structure(lambda a, i=start: tf.constant(a[i : i + size]), (x, y)))
            for callback in callbacks:
                callback.on_train_batch_end(batch)
        for loss in model.loss.values():
            loss.end_epoch()
        model.save_weights(folder / f"{epoch + 1}.weights.h5")


def restored(model, folder):
    """The number of epochs of the last file, which the model gets."""
    done = len(list(folder.glob("*.weights.h5")))
    if done:
        model.load_weights(folder / f"{done}.weights.h5")
    return done


def main():
    folder, how, names = Path(sys.argv[1]), sys.argv[2], sys.argv[3].split(",")
    engine = importlib.import_module(f"tests.engines.{ENGINES[keras.backend.backend()]}").begin()
    files = folder / how
    files.mkdir(exist_ok=True)
    goes_on = bool(list(files.rglob("*.weights.h5")))
    kills = how == "killed" and not goes_on and engine.process == engine.processes - 1
    with engine.scope():
        model = build(names)
        train = fit if "fitted" in engine.ways else loop
        train(engine, model, names, files, [Kill()] if kills else [])
    variables = [*model.variables, *model.optimizer.variables]
    arrays = [ops.convert_to_numpy(variable) for variable in variables]
    np.savez(folder / f"{how}_{engine.process}.npz", *arrays)


if __name__ == "__main__":
    main()
