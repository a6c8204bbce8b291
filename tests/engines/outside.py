"""A training of which something was made outside of the scope of a strategy or a distribution.

    python -m tests.engines.outside WHAT

WHAT is "model", or "loss": of a loop of one's own, of which the loss has weights that move.
"""

import sys

import keras

import combined_losses as cl
from tests.engines.cases import composite, data, network


def model_outside():
    from tests.engines import devices

    model = network()
    model.compile("adam", loss=composite(cl.weightings.MagnitudeBalance()))
    x, y, weight = data()
    with devices.begin().scope():
        model.fit(x, y, sample_weight=weight, batch_size=4, verbose=0)


def model_of_other_replicas():
    from tests.engines import replicas

    engine = replicas.begin()
    model = network()
    with engine.scope():
        model.compile("adam", loss=composite(cl.weightings.MagnitudeBalance()))
        x, y, weight = data()
    model.fit(x, y, sample_weight=weight, batch_size=4, verbose=0)


def loss_outside():
    import tensorflow as tf

    from tests.engines import replicas

    engine = replicas.begin()
    loss = composite(cl.weightings.MagnitudeBalance())

    def on_each():
        x, y, _ = data()
        with loss.training_step():
            return loss(y, x[:, :3])

    tf.function(lambda: engine.strategy.run(on_each), autograph=False)()


WHAT = {
    "tensorflow": {"model": model_of_other_replicas, "loss": loss_outside},
    "jax": {"model": model_outside},
}

if __name__ == "__main__":
    WHAT[keras.backend.backend()][sys.argv[1]]()
