"""Variables: constraints, seeds, gradients, and who reads them."""

import contextlib
from collections.abc import Callable, Iterator

import keras

from combined_losses._backend.arrays import Tensor


def constrain(variable: keras.Variable, constraint: Callable[[Tensor], Tensor] | None) -> None:
    """Gives a variable a constraint after it was made.

    Keras 3.15.1: an optimizer reads `variable.constraint` in each step; the constructor of
    `keras.Variable` has no such argument.
    """
    variable.constraint = constraint


def seed_state(generator: keras.random.SeedGenerator) -> keras.Variable:
    """The variable in which a `keras.random.SeedGenerator` counts its draws.

    Keras 3.15.1: `state`, two whole numbers; the second is the count.
    """
    return generator.state


def clear_gradient(variable: keras.Variable) -> None:
    """Takes the gradient from a variable on torch.

    Keras 3.15.1: `variable.value` is the parameter of torch itself. Before each backward pass the
    trainer calls `self.zero_grad()`, which clears the parameters of the module only.
    """
    variable.value.grad = None


def variables_of_layer(layer: keras.Layer) -> list[keras.Variable]:
    """The variables of a layer, or of a model without those that a subclass of it adds.

    Keras 3.15.1: the property `Layer.variables` reads no other property that a subclass overrides.
    """
    variables: list[keras.Variable] = keras.layers.Layer.variables.fget(layer)
    return variables


@contextlib.contextmanager
def noting_reads(on_read: Callable[[keras.Variable], None]) -> Iterator[None]:
    """In the block `on_read` is called with each variable whose value is read.

    Keras 3.15.1: there is no hook for it, but every read goes through the property `value` of
    `keras.Variable`. That is replaced for all threads, so that the block must be short: one trace.
    """
    value, is_own = keras.Variable.value, "value" in vars(keras.Variable)

    def read(variable: keras.Variable) -> Tensor:
        on_read(variable)
        return value.__get__(variable)

    keras.Variable.value = property(read)
    try:
        yield
    finally:
        if is_own:
            keras.Variable.value = value
        else:
            del keras.Variable.value
