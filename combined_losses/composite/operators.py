"""`a + b` and `0.5 * a` build flat composites, and `as_loss` gives operators to any loss."""

from combined_losses._core import checks, names
from combined_losses._core.arguments import as_child, component_name
from combined_losses._core.compound_loss import CompoundLoss
from combined_losses._core.keras_types import KerasLoss, LossLike
from combined_losses._core.loss import Loss
from combined_losses._core.operators import Builders, Operators
from combined_losses._core.reduction import PER_COMPONENT
from combined_losses.composite.loss import CompositeLoss


def add(left: Operators | LossLike, right: Operators | LossLike) -> CompositeLoss | None:
    """`left + right` as a flat composite; None where one of the two is no loss.

    The components of a plain composite become components of the sum; any other composite, with a
    reduction or a rule of its own, stays one component.
    """
    if not all(isinstance(side, str) or _is_callable(side) for side in (left, right)):
        return None
    terms = [*_terms(left), *_terms(right)]
    losses: dict[str, KerasLoss] = {}
    weights: dict[str, float] = {}
    for name, loss, weight in terms:
        name = names.make_unique(name, losses)
        losses[name], weights[name] = loss, weight
    return CompositeLoss(losses, weights)


def _is_callable(side: object) -> bool:
    return callable(side) and not isinstance(side, type)


def scale(loss: Operators, factor: float) -> CompositeLoss | None:
    """`factor * loss` as a composite; None where the factor is no number."""
    if not isinstance(factor, (int, float)) or isinstance(factor, bool):
        return None
    factor = checks.as_number(f"The factor of component '{loss.name}'", factor)
    terms = _terms(loss)
    return CompositeLoss(
        {name: child for name, child, _ in terms},
        {name: factor * weight for name, _, weight in terms},
    )


def _terms(loss: Operators | LossLike) -> list[tuple[str, KerasLoss, float]]:
    """`(name, loss, weight)` of each component that `loss` adds to a sum."""
    if isinstance(loss, CompositeLoss) and _is_flat(loss):
        weights = loss.weights  # a property that makes all of them
        return [(name, child, weights[name]) for name, child in loss.losses.items()]
    child = as_child(loss, "a sum", None)
    return [(loss if isinstance(loss, str) else component_name(child)[0], child, 1.0)]


def _is_flat(composite: CompositeLoss) -> bool:
    """Whether a sum with this composite may be written as one with its components."""
    moves, skips = composite._node.has_moving_weights, composite.on_nonfinite == "skip"
    return composite.reduction == PER_COMPONENT and not moves and not skips


def as_loss(loss: LossLike) -> Loss | CompoundLoss:
    """Gives operators to any loss, so that `0.7 * cl.as_loss("mse") + 0.3 * cl.as_loss(fn)` works.

    Args:
        loss: a string that `keras.losses.get` knows, a function `f(y_true, y_pred)`, or a
            `keras.losses.Loss`.

    Returns:
        `loss` itself if it has operators; a loss for a string or function; for a loss of Keras the
        `CompositeLoss` of it alone.

    Example:

    >>> import combined_losses as cl
    >>> loss = 0.7 * cl.as_loss("mse") + 0.3 * cl.as_loss("mae")
    >>> loss.weights
    {'mse': 0.7, 'mae': 0.3}
    """
    child = as_child(loss, "as_loss", None)
    return child if isinstance(child, (Loss, CompoundLoss)) else CompositeLoss([child])


Operators._builders = Builders(add, scale)
