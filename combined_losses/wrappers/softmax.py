"""Refusal of a softmax over channels inside a wrapper that shows its loss one channel alone."""

import contextlib
import contextvars
import warnings
from collections.abc import Iterable, Iterator

import keras

from combined_losses._core.compound import traits_of
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.node import node_of
from combined_losses._core.traits import is_ours
from combined_losses.wrappers.predictions import Activated

_loading = contextvars.ContextVar("combined_losses_loading", default=False)
_ACTIVATIONS = [
    getattr(keras.activations, name)
    for name in ("softmax", "log_softmax", "sparsemax")
    if hasattr(keras.activations, name)  # an older Keras has fewer
]


@contextlib.contextmanager
def loading() -> Iterator[None]:
    """A block in which `refuse_softmax` warns instead, so that older files still load."""
    token = _loading.set(True)
    try:
        yield
    finally:
        _loading.reset(token)


def refuse_softmax(owner: str, losses: Iterable[KerasLoss], axis: int | None = -1) -> None:
    """Raises if one of the losses has a softmax over the channels, of which each will see one.

    `axis` is that of the channels.
    """
    for loss in losses:
        found = softmax_inside(loss, axis)
        if found is None:
            continue
        message = (
            f"{owner} shows its loss one channel alone, over which a softmax is always 1 (a region "
            "loss takes a sigmoid there). For classes that exclude each other put the softmax "
            "around it, and inside a loss of probabilities, without from_logits: "
            '`Activated(PerChannel(Dice()), "softmax")`, where `CategoricalFocal(0.0)` is the '
            "cross-entropy. For channels that are independent (masks that overlap) make the "
            f"loss with `multilabel=True`, or take a binary one. Received: {found!r}"
        )
        if not _loading.get():
            raise ValueError(message)
        warnings.warn(f"Loaded as it was saved, but: {message}", stacklevel=2)


def softmax_inside(loss: KerasLoss, axis: int | None = -1) -> KerasLoss | None:
    """The first loss in `loss`, or itself, that has a softmax over the channels; or None.

    The channels are on `axis`. Losses in a user's own wrapper are not examined: it may show them
    anything.
    """
    node = node_of(loss)
    if node is None:
        traits = traits_of(loss)
        return loss if traits.softmax and traits.axis in (-1, axis) else None
    if not is_ours(type(loss)):
        return None
    if isinstance(loss, Activated) and loss._function in _ACTIVATIONS:
        return loss
    found = (softmax_inside(each.loss_itself(), axis) for each, _ in node.nodes_inside())
    return next((child for child in found if child is not None), None)
