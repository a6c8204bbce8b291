"""What only JAX has: a step that is compiled once reads the state outside it once and for all."""

import jax


def is_compiling():
    """Whether a function is being compiled; a gradient alone, taken anew each time, is not."""
    return isinstance(jax.numpy.zeros(()), jax.core.Tracer)


def gradient(function):
    """The gradient of a function of one tensor to a scalar, itself differentiable."""
    return jax.grad(function)


def restore_state(model, state):
    """Called after a step that failed: gives variables back the values that it was given.

    Keras takes them out of the variables before the first step. It gives them back from the result
    of a step, so that a first one that fails, for targets of a wrong shape say, leaves none.
    """
    trainable, non_trainable, *optimizer, metrics = state
    pairs = [
        (model.trainable_variables, trainable),
        (model.non_trainable_variables, non_trainable),
        (model.metrics_variables, metrics),
        *((model.optimizer.variables, values) for values in optimizer),
    ]
    for variables, values in pairs:
        for variable, value in zip(variables, values or (), strict=False):
            if not value.is_deleted():
                variable.assign(value)
