"""The strategy of `tf.distribute` that a model was made in."""

import keras

from combined_losses._backend.arrays import Strategy


def strategy_of(model: keras.Model) -> Strategy:
    """The strategy in whose scope a model was made; None without one, and without TensorFlow.

    Keras 3.15.1: the trainer on TensorFlow keeps it as `distribute_strategy`.
    """
    return getattr(model, "distribute_strategy", None)


def replicas_of(strategy: Strategy) -> int:
    """The number of replicas of a strategy; 1 without one."""
    count: int = getattr(strategy, "num_replicas_in_sync", 1)
    return count
