"""Optimizers: the one inside a loss scaler, the scale, and what weight decay leaves alone."""


def inner_optimizer(optimizer):
    """The optimizer inside a `LossScaleOptimizer`; any other one as it is.

    Keras 3.15.1: the scaler keeps it as `inner_optimizer` and hands on neither `weight_decay` nor
    `gradient_accumulation_steps`, so that these must be read from the inner one.
    """
    return getattr(optimizer, "inner_optimizer", optimizer)


def loss_scale(optimizer):
    """The factor that keeps float16 gradients from vanishing; the number 1.0 without one.

    Keras 3.15.1: `scale_loss(loss)` is `loss` times that factor, and there is no other way to ask
    for it that works for an optimizer with `loss_scale_factor` as well as for a loss scaler.
    """
    return optimizer.scale_loss(1.0)


def keep_from_weight_decay(optimizer, variables):
    """Excludes variables from weight decay beside those that the user has excluded.

    Keras 3.15.1: `exclude_from_weight_decay` replaces what was excluded before, shows it nowhere,
    and is refused once the optimizer is built. It fills `_exclude_from_weight_decay` with the keys
    of the variables (`_var_key`), and empties a cache of answers. Keras 3.16 (in development) has
    no cache; it notes the answers by key when the optimizer is built.
    """
    optimizer = inner_optimizer(optimizer)
    if not variables or getattr(optimizer, "weight_decay", None) is None:
        return
    keys = {optimizer._var_key(variable) for variable in variables}
    known = getattr(optimizer, "_exclude_from_weight_decay", None) or set()
    optimizer._exclude_from_weight_decay = set(known) | keys
    optimizer._exclude_from_weight_decay_cache = {}
    noted = getattr(optimizer, "_weight_decay_by_var_key", {})
    noted.update((key, False) for key in keys & noted.keys())
