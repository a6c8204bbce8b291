"""Replicas of TensorFlow: of one process, or of workers that are started with `TF_CONFIG`.

REPLICAS=4 python -m tests.engines.replicas 0 losses
"""

import json
import os
import warnings

import keras
import numpy as np
import tensorflow as tf

from tests.engines import cases
from tests.engines.cases import CUT, STEPS, composite, data, network

# Where a batch is cut into the parts of so many replicas.
CUTS = {
    (2, "uneven"): [CUT],
    (2, "empty"): [0],
    (4, "uneven"): [1, 1, CUT],  # the second one has nothing either
    (4, "empty"): [0, 0, CUT],
}


def step(loss, y_true, y_pred, weight=None):
    with tf.GradientTape() as tape, cases.step_of(loss):
        tape.watch(y_pred)
        value = loss(y_true, y_pred, weight)
    return value, tape.gradient(value, y_pred, unconnected_gradients="zero")


class Replicas(cases.Engine):
    """
    Args:
        strategy: the strategy of `tf.distribute`.
        here: the numbers of the replicas of this process.
        ways: as in `cases.Engine`.
    """

    splits = ("uneven", "empty")
    samples = 11  # the last batch of `fit` has three: four replicas get 1, 1, 1 and 0 of them

    def __init__(self, strategy, here, ways=cases.Engine.ways):
        self.strategy, self.here, self.ways = strategy, here, ways
        self.count = strategy.num_replicas_in_sync
        if len(here) < self.count:
            self.process, self.processes = here[0], self.count

    def scope(self):
        return self.strategy.scope()

    def alone(self, make, *data):
        loss = make()
        number, slope = step(loss, *(tf.constant(array) for array in data if array is not None))
        return [float(number), *cases.state_of(loss)], slope.numpy()

    def together(self, make, split, *data):
        with self.strategy.scope():
            loss = make()
        run = self.compiled(lambda *part: step(loss, *part))
        number, slopes = run(self.parts(split, data))
        slope = np.concatenate([each.numpy() for each in slopes])
        cuts = [0, *CUTS[self.count, split], len(data[0])]
        rows = slice(cuts[self.here[0]], cuts[self.here[-1] + 1])
        return [float(number), *cases.state_of(loss)], slope, rows

    def compiled(self, function):
        """A function of the parts: the sum of the first result, and the second ones of here."""

        def run(parts):
            number, other = self.strategy.run(function, parts)
            local = self.strategy.experimental_local_results(other)
            return self.strategy.reduce("SUM", number, axis=None), local

        return tf.function(run, autograph=False, reduce_retracing=True)

    def parts(self, split, data):
        """The arrays as the replicas get them."""
        cuts = [0, *CUTS[self.count, split], len(data[0])]

        def part(context):
            number = context.replica_id_in_sync_group
            rows = slice(cuts[number], cuts[number + 1])
            return tuple(tf.constant(array[rows]) for array in data if array is not None)

        return self.strategy.experimental_distribute_values_from_function(part)

    def train(self, way, make_rule, is_together, factor=1.0):
        strategy = self.strategy if is_together else tf.distribute.get_strategy()
        with strategy.scope():
            model, loss = network(), composite(make_rule())
            if way != "looped":
                return cases.FITS[way](model, loss, data(self.samples, factor))
        return self.looped(model, loss, strategy, data(factor=factor), is_together)

    def looped(self, model, loss, strategy, data, is_together):
        variables = [*model.trainable_variables, *loss.trainable_variables]
        with strategy.scope():
            optimizer = keras.optimizers.SGD(0.1)
            optimizer.build(variables)

        def on_each(x, y, weight):
            with tf.GradientTape() as tape, loss.training_step():
                total = loss(y, model(x, training=True), weight)
            optimizer.apply(tape.gradient(total, variables), variables)
            return total, total

        run = self.compiled(on_each) if is_together else on_each
        parts = self.parts("uneven", data) if is_together else tuple(map(tf.constant, data))
        values = []
        for _ in range(STEPS):
            number, _ = run(parts) if is_together else run(*parts)
            values.append(float(number))
        return [*values, *model.get_weights(), *cases.state_of(loss)]


def begin():
    """The engine of this process, and of its replicas."""
    warnings.simplefilter("ignore")
    if "TF_CONFIG" in os.environ:
        index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
        strategy = tf.distribute.MultiWorkerMirroredStrategy()  # before anything of TensorFlow
        return Replicas(strategy, [index], ("looped",))
    count = int(os.environ["REPLICAS"])
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * count,
    )
    strategy = tf.distribute.MirroredStrategy([f"CPU:{number}" for number in range(count)])
    return Replicas(strategy, range(count))


if __name__ == "__main__":
    cases.main(begin())
