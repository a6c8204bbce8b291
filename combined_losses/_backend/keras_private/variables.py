"""Variables: constraints, seeds, gradients, and who reads them."""

import contextlib

import keras


def constrain(variable, constraint):
    """Gives a variable a constraint after it was made.

    Keras 3.15.1: an optimizer reads `variable.constraint` in each step; `keras.Variable` takes
    none when it is made.
    """
    variable.constraint = constraint


def seed_state(generator):
    """The variable that a `keras.random.SeedGenerator` counts its draws in.

    Keras 3.15.1: `state`, of two whole numbers; the second is the count.
    """
    return generator.state


def clear_gradient(variable):
    """Takes the gradient from a variable on torch.

    Keras 3.15.1: `variable.value` is the parameter of torch itself. The trainer calls
    `self.zero_grad()` before each backward pass, which knows the parameters of the module alone.
    """
    variable.value.grad = None


def variables_of_layer(layer):
    """The variables of a layer, or of a model without those that a subclass of it adds.

    Keras 3.15.1: `Layer.variables` is a property that asks no other one which may be overridden.
    """
    return keras.layers.Layer.variables.fget(layer)


@contextlib.contextmanager
def noting_reads(note):
    """In the block `note` is called with each variable whose value is read.

    Keras 3.15.1: there is no hook for it, but every read goes through the property `value` of
    `keras.Variable`. It is replaced for all threads, so that the block must be short: a trace.
    """
    value, had = keras.Variable.value, "value" in vars(keras.Variable)

    def noting(variable):
        note(variable)
        return value.__get__(variable)

    keras.Variable.value = property(noting)
    try:
        yield
    finally:
        if had:
            keras.Variable.value = value
        else:
            del keras.Variable.value
