"""Where the channels are: `data_format`, and how the channels are moved to the last axis.

A loss or wrapper with the argument `data_format` is `Formatted`: it says where the channels of its
data are. Formulas are always given the channels last. `batch.channels` says where they are now: "as
given" is where the data have them; "moved" is on the last axis, and they can be moved back; "last"
is on the last axis for good, because the arrays no longer have the axes of the data (each channel
may have become a sample, for example).
"""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Self

import keras
from keras import ops

from combined_losses._core.alignment import padded
from combined_losses._core.batch import Batch
from combined_losses._core.keras_types import DataFormat, KerasLoss, KerasLossClass
from combined_losses._core.node import node_of
from combined_losses._core.traits import keras_traits
from combined_losses._numerics.arrays import ArrayLike, Tensor

FORMATS = ("channels_last", "channels_first")
_GIVEN = "data_format_is_given"  # in a config: False if channels_first is from Keras's setting


class Format(NamedTuple):
    """The data format of a loss.

    Args:
        owner: the class of the loss.
        name: "channels_last" or "channels_first".
        is_given: whether an argument says so; else Keras's setting does.
        least_rank: the lowest rank of arrays that have an axis of channels.
        reads_target: whether the loss compares with a target.
    """

    owner: str
    name: str
    is_given: bool
    least_rank: int
    reads_target: bool

    def rank(self, y_true: Tensor, y_pred: Tensor) -> int | None:
        """The rank of the arrays whose axis 1 holds channels; None if the last axis holds them."""
        if self.name == "channels_last" or keras.tree.is_nested(y_pred):
            return None
        rank = len(y_pred.shape)
        if self.reads_target and y_true is not None and not keras.tree.is_nested(y_true):
            # The targets may have an axis for a single channel that the predictions lack.
            rank += len(y_true.shape) == rank + 1 and y_true.shape[1] == 1
        least = self.least_rank if self.is_given else max(4, self.least_rank)
        return rank if rank >= least else None


class Formatted(KerasLossClass):
    """A loss or wrapper with the argument `data_format` (a mixin, the first of the bases).

    `__init__` calls `self._set_format(data_format)` after `super().__init__`. From then on
    `data_format` is one of `FORMATS`. The argument acts on all arrays that have channels; Keras's
    setting acts only on predictions of rank 4 or more. So the config keeps which of them it was.
    """

    data_format: str
    _format_is_given = True
    _least_rank = 3  # the lowest rank of arrays that have an axis of channels

    def _set_format(self, data_format: DataFormat) -> None:
        """Checks the argument and resolves None: the format of the losses inside, else Keras's."""
        owner = f"{type(self).__name__} ('{self.name}')"
        if data_format is not None and data_format not in FORMATS:
            raise ValueError(
                f"The argument `data_format` of {owner} must be None, 'channels_last' or "
                f"'channels_first'. Received: {data_format!r}"
            )
        inside = formats_in(self, with_itself=False)
        names = {format.name for format in inside}
        if data_format is not None:
            names.add(data_format)
        if len(names) > 1:
            found = ", ".join(f"{format.owner} {format.name!r}" for format in inside)
            raise ValueError(
                f"{owner} and the losses in it must have one data format: give all of them the "
                f"same `data_format`. Received: data_format={data_format!r}, and in it {found}"
            )
        by_axis = not names and _has_classes_first(self)
        given = data_format is not None or any(format.is_given for format in inside)
        self._format_is_given = given or by_axis
        default: str = "channels_first" if by_axis else keras.config.image_data_format()
        self.data_format = next(iter(names), default)

    @property
    def formats(self) -> list[Format]:
        """The `Format` that acts on this loss and on wrappers around it; empty if there is none."""
        reads = getattr(self, "reads_target", getattr(self, "needs_target", True))
        given = self._format_is_given
        owner = type(self).__name__
        return [Format(owner, self.data_format, given, self._least_rank, bool(reads))]

    def get_config(self) -> dict[str, Any]:
        return self._with_format(super().get_config())

    def _with_format(self, config: dict[str, Any]) -> dict[str, Any]:
        by_setting = self.data_format == "channels_first" and not self._format_is_given
        return {**config, _GIVEN: False} if by_setting else config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        if not isinstance(config, dict):
            return super().from_config(config)  # raises the error about such a config
        # Files of versions without this argument hold losses that take the channels last.
        config = {"data_format": "channels_last", **config}
        given = config.pop(_GIVEN, True)
        loss = super().from_config(config)
        loss._format_is_given = bool(given)
        return loss


def formats_in(loss: KerasLoss, with_itself: bool = True) -> list[Format]:
    """The `Format` of `loss`; if it has none, the outermost ones of the losses inside."""
    if with_itself and isinstance(loss, Formatted):
        return loss.formats
    return [found for child in _inside(loss) for found in formats_in(child)]


def _has_classes_first(loss: KerasLoss) -> bool:
    """Whether a loss, or one inside, is one of Keras's with the classes on axis 1 (`axis=1`)."""
    children = _inside(loss)
    return any(map(_has_classes_first, children)) if children else keras_traits(loss).axis == 1


def _inside(loss: KerasLoss) -> list[KerasLoss]:
    """The losses that a loss is made of; an empty list if it is not made of others."""
    own = node_of(loss)
    return [] if own is None else [node.loss_itself() for node, _ in own.nodes_inside()]


def moved(array: Tensor, rank: int, source: int = 1, destination: int = -1) -> Tensor:
    """The array with the channels moved, if it has `rank` axes; others have no channels."""
    if array is None or keras.tree.is_nested(array) or len(array.shape) != rank:
        return array
    return ops.moveaxis(array, source, destination)


def channels_last(call: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Decorator for the `call` of a `Formatted` loss: the method is given the channels last.

    `call.of_channels_last` is the undecorated method, for data that already have them last.
    """

    def of_any(
        self: Formatted,
        y_true: ArrayLike,
        y_pred: ArrayLike,
        sample_weight: ArrayLike = None,
        *others: Any,  # tf.function passes what else `call` has, by its place
    ) -> Tensor:
        arrays = [None if a is None else ops.convert_to_tensor(a) for a in (y_true, y_pred)]
        rank = next((format.rank(*arrays) for format in self.formats), None)
        if sample_weight is not None:
            arrays.append(ops.convert_to_tensor(sample_weight))
        elif others:
            arrays.append(None)
        given = (a if rank is None else moved(a, rank) for a in arrays)
        return call(self, *given, *others)

    functools.update_wrapper(of_any, call)
    of_any.of_channels_last = call  # type: ignore[attr-defined]  # functions take attributes
    return of_any


# Batches.


def with_channels_last(batch: Batch, formats: Sequence[Format]) -> Batch:
    """The batch with the channels moved to the end, if the first of `formats` has them first.

    In all arrays that have as many axes as the predictions the channels are moved. Ids, and the
    weights and masks of pixels, have one axis less and stay as they are.
    """
    if batch.channels != "as given" or not formats:
        return batch
    rank = formats[0].rank(batch.y_true, batch.y_pred)
    return batch if rank is None else _rearranged(batch, "moved", rank, 1, -1)


def as_given(batch: Batch, for_view: bool = False) -> Batch:
    """The batch with the channels where the data have them.

    With `for_view`, weights and masks of pixels get an axis of length 1 at the place of the
    channels, because a view matches weights with the data from the left.
    """
    if batch.channels != "moved":
        return batch
    if for_view:
        rank = batch.channel_rank
        batch = batch.view(weights=lambda _, w: padded(w, rank) if len(w.shape) > 1 else w)
    if keras.tree.is_nested(batch.y_pred) or len(batch.y_pred.shape) < batch.channel_rank:
        return batch.replaced(channels="last")  # without that axis, nothing can be moved back
    return _rearranged(batch, "as given", batch.channel_rank, -1, 1)


def _rearranged(
    batch: Batch, channels: Literal["as given", "moved"], rank: int, source: int, destination: int
) -> Batch:
    """The batch with the channels moved in each array of `rank` axes; others have no channels."""

    def move(array: Tensor) -> Tensor:
        return moved(array, rank, source, destination)

    return batch.once(
        (channels, rank),
        lambda: batch.view(
            move, lambda _, weight: move(weight), channels=channels, channel_rank=rank
        ),
    )


_NOTE = "These shapes have the channels last; the data have them on axis 1 (`data_format`)."


@contextlib.contextmanager
def telling(batch: Batch) -> Iterator[None]:
    """A block whose errors get a note that the channels in their shapes were moved to the end."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if batch.channels == "moved" and _NOTE not in getattr(error, "__notes__", ()):
            error.add_note(_NOTE)
        raise
