"""Optimizers: the one inside a loss scaler, the scale, and what weight decay leaves alone."""

from collections.abc import Collection

import keras

from combined_losses._backend.arrays import Tensor


def inner_optimizer(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer inside a `LossScaleOptimizer`; any other one as it is.

    Keras 3.15.1: the scaler keeps it as `inner_optimizer`. The scaler itself has neither its
    `weight_decay` nor its `gradient_accumulation_steps`.
    """
    return getattr(optimizer, "inner_optimizer", optimizer)


def loss_scale(optimizer: keras.optimizers.Optimizer) -> Tensor:
    """The factor that keeps float16 gradients from vanishing; the number 1.0 without one.

    Keras 3.15.1: `scale_loss(loss)` is `loss` times that factor. Nothing else gives the factor of
    both an optimizer with `loss_scale_factor` and a loss scaler.
    """
    return optimizer.scale_loss(1.0)


def keep_from_weight_decay(
    optimizer: keras.optimizers.Optimizer, variables: Collection[keras.Variable]
) -> None:
    """Excludes variables from weight decay, in addition to those that the user has excluded.

    Keras 3.15.1: the method `exclude_from_weight_decay` forgets what was excluded before, which
    nothing public shows, and raises once the optimizer is built. It sets
    `_exclude_from_weight_decay` to the keys of the variables (`_var_key`), and empties a cache that
    says of each variable whether it decays. Keras 3.16 (in development) has no cache; it fills
    `_weight_decay_by_var_key` when the optimizer is built.
    """
    optimizer = inner_optimizer(optimizer)
    if not variables or getattr(optimizer, "weight_decay", None) is None:
        return
    keys = {optimizer._var_key(variable) for variable in variables}
    excluded = getattr(optimizer, "_exclude_from_weight_decay", None) or set()
    optimizer._exclude_from_weight_decay = set(excluded) | keys
    optimizer._exclude_from_weight_decay_cache = {}
    decays = getattr(optimizer, "_weight_decay_by_var_key", {})
    decays.update((key, False) for key in keys & decays.keys())
