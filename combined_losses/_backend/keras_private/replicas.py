"""The strategy of `tf.distribute` that a model was made in."""


def strategy_of(model):
    """The strategy in whose scope a model was made, or None; TensorFlow alone has any.

    Keras 3.15.1: the trainer on TensorFlow keeps it as `distribute_strategy`.
    """
    return getattr(model, "distribute_strategy", None)


def replicas_of(strategy):
    """The number of replicas of a strategy; 1 without one."""
    return getattr(strategy, "num_replicas_in_sync", 1)
