"""`cl.Model` and `cl.Sequential`, and the way from and to plain Keras models."""

from collections.abc import Mapping
from typing import Any, Self

import keras

from combined_losses._backend import keras_private
from combined_losses.training.mixin import ComponentMetricsMixin

_KerasFunctional: Any = keras_private.FUNCTIONAL


@keras.saving.register_keras_serializable("combined_losses")
class Model(ComponentMetricsMixin, keras.Model):
    """`keras.Model` that reports every component of a `CompositeLoss`.

    Use it as `keras.Model`: `cl.Model(inputs, outputs)`, or as a base class. See
    `cl.ComponentMetricsMixin` for what it adds.

    Args:
        inputs, outputs, name: as in `keras.Model`.

    Example:

    >>> import keras
    >>> import combined_losses as cl
    >>> inputs = keras.Input((2,))
    >>> model = cl.Model(inputs, keras.layers.Dense(1)(inputs))
    >>> model.compile("adam", loss=cl.CompositeLoss(["mse", "mae"]))
    >>> model.metrics_names
    ['loss', 'mse_loss', 'mae_loss']
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        functional = cls is Model and keras_private.are_functional_arguments(args, kwargs)
        made: Self = super().__new__(Functional if functional else cls)
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        functional = keras_private.are_functional_arguments(args, kwargs)
        if functional and not isinstance(self, _KerasFunctional):
            # Keras would do it as well, but at once for every class of the user's.
            keras_private.put_functional_below(type(self), Model, Functional)
        super().__init__(*args, **kwargs)


@keras.saving.register_keras_serializable("combined_losses")
class Functional(Model, _KerasFunctional):
    """What `cl.Model(inputs, outputs)` creates."""

    def __reduce__(self) -> tuple[Any, Any]:
        # This class is private, so that a pickle names the public `Model`. A pickle of a user's
        # subclass names the subclass: loading it imports its module, which registers it.
        rebuild, arguments = super().__reduce__()
        named = Model if type(self) is Functional else type(self)
        return getattr(named, rebuild.__name__), arguments


@keras.saving.register_keras_serializable("combined_losses")
class Sequential(ComponentMetricsMixin, keras.Sequential):
    """`keras.Sequential` that reports every component of a `CompositeLoss`.

    See `cl.ComponentMetricsMixin` for what it adds.

    Args:
        layers, trainable, name: as in `keras.Sequential`.

    Example:

    >>> import keras
    >>> import combined_losses as cl
    >>> model = cl.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile("adam", loss=cl.CompositeLoss(["mse", "mae"]))
    >>> model.metrics_names
    ['loss', 'mse_loss', 'mae_loss']
    """


def track(model: keras.Model) -> "Model | Sequential":
    """An existing Functional or Sequential model as one that reports components.

    Args:
        model: a `keras.Model(inputs, outputs)` or `keras.Sequential`.

    Returns:
        A `cl.Model` or `cl.Sequential` of the same layers and weights, not compiled. A model that
        reports components already is returned as it is.

    Raises:
        ValueError: for a subclassed model: put `cl.ComponentMetricsMixin` before `keras.Model`.

    Example:

    >>> import keras
    >>> import combined_losses as cl
    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> tracked = cl.track(model)
    >>> tracked.layers[0] is model.layers[0]
    True
    """
    if isinstance(model, ComponentMetricsMixin):
        return model
    classes = {keras.Sequential: Sequential, _KerasFunctional: Functional}
    tracked: Model | Sequential = _rebuild(model, classes)
    return tracked


def untrack(model: keras.Model) -> keras.Model:
    """The plain Keras model back, for deployment: it loads without this package.

    Args:
        model: a `cl.Model(inputs, outputs)`, a `cl.Sequential`, or a result of `cl.track`.

    Returns:
        A `keras.Model` or `keras.Sequential` of the same layers and weights, not compiled. A plain
        Keras model is returned as it is.

    Raises:
        ValueError: for a subclassed model.

    Example:

    >>> import keras
    >>> import combined_losses as cl
    >>> model = cl.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> type(cl.untrack(model)) is keras.Sequential
    True
    """
    if isinstance(model, keras.Model) and not isinstance(model, ComponentMetricsMixin):
        return model
    return _rebuild(model, {Sequential: keras.Sequential, Functional: _KerasFunctional})


def _rebuild(model: keras.Model, classes: Mapping[type[Any], type[Any]]) -> Any:
    """A model of the same layers, of the class that `classes` gives for the class of `model`."""
    cls = classes.get(type(model))
    if cls is None:
        raise ValueError(
            "Only a Functional model (`keras.Model(inputs, outputs)`) or a Sequential one can be "
            "taken over. For a class of your own write "
            "`class MyModel(cl.ComponentMetricsMixin, keras.Model)`. "
            f"Received: {model!r} of type {type(model).__name__}"
        )
    if issubclass(cls, keras.Sequential):
        layers = [*(model.inputs[:1] if model.built else []), *model.layers]
        rebuilt = cls(layers, name=model.name)
    else:
        rebuilt = cls(model.input, model.output, name=model.name)
    keras_private.copy_dtype_policy(rebuilt, model)
    if not model.trainable:
        rebuilt.trainable = False
    return rebuilt
