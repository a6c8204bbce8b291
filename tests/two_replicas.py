"""Two replicas of TensorFlow, on two logical CPUs, for a script that runs in its own process."""

import functools

import numpy as np


@functools.cache
def strategy():
    """The strategy; call it before anything else uses TensorFlow, because it sets the devices."""
    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def alone_and_together(function, first, *data):
    """What a function gives on one device, and on two replicas: two lists of numbers.

    Args:
        function: gives numbers, which replicas add up, and the slope by its predictions.
        first: how many samples the first replica gets; the second one has the others.
        data: nested arrays, with the samples on the first axis.
    """
    import tensorflow as tf

    shares = (slice(0, first), slice(first, None))
    parts = strategy().experimental_distribute_values_from_function(
        lambda context: tf.nest.map_structure(
            lambda array: tf.constant(array[shares[context.replica_id_in_sync_group]]), data
        )
    )
    step = tf.function(lambda parts: function(*parts), reduce_retracing=True)
    numbers, slopes = map(strategy().experimental_local_results, strategy().run(step, (parts,)))
    alone = function(*tf.nest.map_structure(tf.constant, data))
    return [
        _listed(*alone),
        _listed(sum(each.numpy() for each in numbers), np.concatenate([s.numpy() for s in slopes])),
    ]


def _listed(*arrays):
    return [number for array in arrays for number in np.ravel(array).tolist()]
