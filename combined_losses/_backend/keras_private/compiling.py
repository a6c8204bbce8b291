"""What `compile` leaves in a model."""

import numpy as np
from keras import ops


def compile_without_loss(compile_, model, optimizer, loss, computed_before, arguments):
    """Compiles a model with a loss that Keras keeps but does not compute.

    `compile_` is Keras's method of the model; `computed_before` says whether Keras computes the
    loss of an earlier `compile`.

    Keras 3.15.1: without a loss, `compile` makes nothing that computes one, and leaves `model.loss`
    alone, which savers read. But what computed a loss before stays, with its metrics, until Keras
    is given another loss.
    """
    compile_(optimizer, loss if computed_before else None, **arguments)
    model.loss = loss


def forget_loss(model):
    """Takes the loss from a model before it is compiled without one.

    Keras 3.15.1: `compile(loss=None)` leaves `model.loss` as it was.
    """
    model.loss = None


def compiled_loss_weights(model):
    """The `loss_weights` that a model was compiled with.

    Keras 3.15.1: the object that computes the loss keeps them as the user gave them. The public
    `get_compile_config` saves all losses on the way, and a lambda cannot be saved.
    """
    return getattr(model._compile_loss, "_user_loss_weights", None)


def replace_compile_config(model, make):
    """Puts `make(config)` in the place of what Keras saves of `compile`.

    Keras 3.15.1: the saver of `.h5` files reads `model._compile_config.config`, a dict of the
    arguments, and asks the model for nothing; `get_compile_config` calls its `serialize()`.
    """
    model._compile_config = make(model._compile_config)


def has_counted_no_loss(metrics):
    """Whether what comes first of a model's metrics is the mean loss, and has counted nothing.

    Keras 3.15.1: the first of `model.metrics` is a `Mean` of the name "loss", with its number of
    samples as `count`.
    """
    first = next((m for m in metrics[:1] if m.name == "loss" and hasattr(m, "count")), None)
    if first is None:
        return False
    return not np.any(ops.convert_to_numpy(ops.convert_to_tensor(first.count)))


def behind_loss(names, more):
    """The names of a model's metrics with `more` behind that of the loss.

    Keras 3.15.1: the loss is the first of `model.metrics_names`.
    """
    return [*names[:1], *more, *names[1:]]
