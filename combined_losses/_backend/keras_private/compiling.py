"""What `compile` leaves in a model."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def compile_without_loss(
    compile_: Callable[..., None],
    model: keras.Model,
    optimizer: object,
    loss: object,
    computed_before: bool,
    arguments: dict[str, Any],
) -> None:
    """Compiles a model with a loss that Keras keeps but does not compute.

    Args:
        compile_: Keras's method of the model.
        model: the model.
        optimizer, loss: those of `compile`.
        computed_before: whether Keras computes the loss of an earlier `compile`.
        arguments: the other arguments of `compile`.

    Keras 3.15.1: `compile` without a loss makes no object that computes one, and leaves
    `model.loss`, which savers read, as it was. An object that an earlier `compile` has made stays,
    with its metrics, until `compile` is given another loss.
    """
    compile_(optimizer, loss if computed_before else None, **arguments)
    model.loss = loss


def forget_loss(model: keras.Model) -> None:
    """Takes the loss from a model before it is compiled without one.

    Keras 3.15.1: `compile(loss=None)` leaves `model.loss` as it was.
    """
    model.loss = None


def compiled_loss_weights(model: keras.Model) -> Any:
    """The `loss_weights` that a model was compiled with, as the user gave them.

    Keras 3.15.1: the object that computes the loss keeps them. The public `get_compile_config` has
    them, too, but serializes the losses on the way, and raises where one is a lambda.
    """
    return getattr(model._compile_loss, "_user_loss_weights", None)


def replace_compile_config(model: keras.Model, make: Callable[[Any], Any]) -> None:
    """Replaces what Keras saves of the arguments of `compile` by `make` of it.

    Keras 3.15.1: the saver of `.h5` files reads `model._compile_config.config`, a dict of the
    arguments, and calls no method of the model; `get_compile_config` calls `serialize()` of
    `model._compile_config`.
    """
    model._compile_config = make(model._compile_config)


def has_counted_no_loss(metrics: Sequence[keras.Metric]) -> bool:
    """Whether the first of a model's metrics is the mean loss, and has counted no sample yet.

    Keras 3.15.1: the first of `model.metrics` is a `Mean` of the name "loss", whose variable
    `count` is the number of samples.
    """
    first = next((m for m in metrics[:1] if m.name == "loss" and hasattr(m, "count")), None)
    if first is None:
        return False
    count = ops.convert_to_numpy(ops.convert_to_tensor(first.count))
    return not np.any(count)


def behind_loss(names: Sequence[str], more: Sequence[str]) -> list[str]:
    """The names of a model's metrics with `more` inserted after "loss".

    Keras 3.15.1: "loss" is the first of `model.metrics_names`.
    """
    return [*names[:1], *more, *names[1:]]
