"""What only TensorFlow has: several replicas that each see a part of the batch, and tapes."""

import tensorflow as tf


def replica_count():
    """The number of replicas that compute this batch together; 1 outside a replica."""
    context = tf.distribute.get_replica_context()
    return 1 if context is None else context.num_replicas_in_sync


def global_sum(value):
    """The sum of `value` over all replicas; its gradient is that of all of them together."""
    if replica_count() == 1:
        return value
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.SUM, value)


def gradient(function):
    """The gradient of a function of one tensor to a scalar, itself differentiable."""

    def gradient_at(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = function(x)
        return tape.gradient(value, x, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return gradient_at


def is_in_scope(strategy, variable):
    """Whether a variable was made inside the scope of a distribution strategy."""
    return strategy is None or strategy.extended.variable_created_in_scope(variable.value)
