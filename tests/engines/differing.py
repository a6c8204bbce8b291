"""A process of a training in which the last process has another loss, of the same shapes."""

import importlib

import keras

import combined_losses as cl
from tests.engines.cases import data, network

ENGINES = {"torch": "ranks", "tensorflow": "replicas", "jax": "devices"}


def main():
    backend = keras.backend.backend()
    engine = importlib.import_module(f"tests.engines.{ENGINES[backend]}").begin()
    is_last = engine.process == engine.processes - 1
    x, y, _ = data()
    with engine.scope():
        model = network()
        loss = cl.CompositeLoss({"a": "mse", "b": keras.losses.Huber() if is_last else "mae"})
        model.compile("sgd", loss=loss)
        if backend == "tensorflow":
            import tensorflow as tf

            pair = tf.constant(y), model(x)
            tf.function(lambda: engine.strategy.run(loss, pair), autograph=False)()
        else:
            model.fit(x, y, batch_size=4, verbose=0)


if __name__ == "__main__":
    main()
