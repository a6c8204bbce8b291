"""What a user gave as `losses` and `weights` of a composite, checked."""

import functools
import inspect

import keras

from combined_losses._internal import checks, names
from combined_losses.losses.base import FunctionLoss
from combined_losses.weightings.base import Weighting


class Losses(dict):
    """The components of a composite by name, which cannot be changed."""

    def __init__(self, losses, owner):
        super().__init__(losses)
        self._owner = owner

    def __reduce__(self):  # else a copy would be filled entry by entry
        return Losses, (dict(self), self._owner)

    def _refuse(self, *change, **more):
        raise TypeError(
            f"The `losses` of '{self._owner}' are fixed when it is made: make another one, for "
            "example CompositeLoss({**loss.losses, 'new': 'mse'}). "
            f"Received: a change of {next(iter(change), more)!r}"
        )

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse


def as_child(loss, owner, name):
    """A component as a `keras.losses.Loss`."""
    where = f"Component '{name}' of '{owner}'" if name else f"A component of '{owner}'"
    if isinstance(loss, str):
        try:
            known = keras.losses.get(loss)
        except ValueError as error:
            raise ValueError(
                f"{where} must be a loss that `keras.losses.get` knows, for example 'mse' or "
                f"'categorical_crossentropy'. Received: {loss!r}"
            ) from error
        return known if isinstance(known, keras.losses.Loss) else FunctionLoss(loss)
    if isinstance(loss, keras.losses.Loss):
        checks.check_dtype(f"component '{name or loss.name}'", loss.dtype)
        if type(loss).__call__ is keras.losses.Loss.__call__:
            _check_takes(loss.call, where, "call")
        return loss
    if isinstance(loss, type) or not callable(loss) or isinstance(_behind(loss), _NO_LOSSES):
        raise ValueError(
            f"{where} must be a keras.losses.Loss, a string, or a function f(y_true, y_pred)"
            f"{_hint(loss)}. Received: {loss!r} of type {type(loss).__name__}"
        )
    _check_takes(loss, where, "function")
    return FunctionLoss(loss)


# What can be called, and judges no predictions.
_NO_LOSSES = (
    keras.metrics.Metric,
    keras.layers.Layer,  # a model is one
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.initializers.Initializer,
)


def _behind(function):
    """The object that a partial function or the method `__call__` of an object stands for."""
    while isinstance(function, functools.partial):
        function = function.func
    bound = getattr(function, "__name__", "") == "__call__"
    return getattr(function, "__self__", function) if bound else function


def _hint(loss):
    """What to do with what is no loss."""
    loss = _behind(loss)
    if isinstance(loss, type):
        return f"; create it first: {loss.__name__}()"
    if isinstance(loss, keras.metrics.Metric):
        return (
            ": a metric adds up over batches, so that its value is not that of this one; take the "
            "loss or function of the same name, and give the metric to `compile(metrics=...)`"
        )
    if isinstance(loss, keras.layers.Layer):
        return ": write a function that calls it and returns one value for each sample"
    if isinstance(loss, keras.optimizers.schedules.LearningRateSchedule):
        return ": a schedule is a weight, give it in `weights`"
    return ""


def _check_takes(function, where, what):
    """Raises unless a function can be called with targets and predictions, or with the latter."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # some built-in ones have none to see
        return
    for arguments in (("y_true", "y_pred"), ("y_pred",)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return
    name = getattr(function, "__name__", type(function).__name__)
    raise ValueError(
        f"{where} must be a loss or a function f(y_true, y_pred), or f(y_pred) of predictions "
        f"alone; give what else its {what} needs a default, or bind it with functools.partial. "
        f"Received: {name}{signature}"
    )


def as_children(losses, owner):
    if isinstance(losses, dict):
        pairs = list(losses.items())
        for name, _ in pairs:
            names.check_name(name, owner)
    elif isinstance(losses, (list, tuple)):
        pairs = _named(losses, owner)
    else:
        raise ValueError(
            f"`losses` of '{owner}' must be a dict from name to loss, or a list of losses. "
            f"Received: {losses!r}"
        )
    if not pairs:
        raise ValueError(f"`losses` of '{owner}' must not be empty. Received: {losses!r}")
    return {name: as_child(loss, owner, name) for name, loss in pairs}


def _named(losses, owner):
    """Names for the components of a list; two that the user gave must differ."""
    pairs, chosen, numbers = {}, set(), {}
    for loss in losses:
        if not isinstance(loss, str) and not callable(loss):
            as_child(loss, owner, None)  # raises
        name, given = component_name(loss)
        if given and name in chosen:
            raise ValueError(
                f"Two components of '{owner}' have the same name; rename one of them. "
                f"Received: {name!r} twice"
            )
        chosen.update([name] if given else [])
        names.check_name(name, owner)
        pairs[names.make_unique(name, pairs, numbers)] = loss
    return list(pairs.items())


def component_name(loss):
    """The name of a component without one, and whether the user chose it."""
    if isinstance(loss, FunctionLoss):
        return loss.name, loss.name != names.derive_name(loss.function)[0]
    if hasattr(loss, "name_is_given"):  # a wrapper, which else has the name of its child
        return loss.name, loss.name_is_given
    return names.derive_name(loss)


def as_weights(weights, component_names, owner):
    """A dict from name to float or schedule; 1.0 for what is not given."""
    if weights is None:
        weights = {}
    if isinstance(weights, Weighting):
        raise ValueError(
            f"`weights` of '{owner}' are numbers or schedules; pass a rule as `weighting=`. "
            f"Received: {weights!r}"
        )
    if isinstance(weights, (list, tuple)):
        if len(weights) != len(component_names):
            raise ValueError(
                f"`weights` of '{owner}' must have one number for each of its "
                f"{len(component_names)} components {list(component_names)}. "
                f"Received: {len(weights)} weights, {weights!r}"
            )
        weights = dict(zip(component_names, weights, strict=True))
    if not isinstance(weights, dict):
        raise ValueError(
            f"`weights` of '{owner}' must be a dict from component name to number, or a list of "
            f"numbers. Received: {weights!r}"
        )
    unknown = [name for name in weights if name not in component_names]
    if unknown:
        raise ValueError(
            f"`weights` of '{owner}' must name components: {list(component_names)}. "
            f"Received: {unknown[0]!r}"
        )
    return {name: _as_weight(name, weights.get(name, 1.0)) for name in component_names}


def _as_weight(name, weight):
    """A float, or a schedule as it is."""
    if isinstance(weight, keras.optimizers.schedules.LearningRateSchedule):
        return weight
    if isinstance(weight, Weighting):
        raise ValueError(
            f"The weight of component '{name}' must be a number or a schedule; pass a rule, which "
            f"weighs all components, as `weighting=`. Received: {weight!r}"
        )
    return checks.check_weight(name, weight)
