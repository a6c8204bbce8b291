"""Where the channels are: `data_format`, and the one way to the channels last.

A loss or wrapper with the argument `data_format` is `Formatted`: it says where the channels of its
data are. What computes sees them last. A `Batch` knows what was done to it, in `batch.channels`:
"as given"; "moved", so that they can be moved back; or "last", where no array has the layout of the
data any more (samples of single channels, say).
"""

import contextlib
import functools
from typing import Any, NamedTuple

import keras
from keras import ops

from combined_losses._core.alignment import padded
from combined_losses._core.keras_types import KerasLoss
from combined_losses._core.node import Node
from combined_losses._core.traits import keras_traits

FORMATS = ("channels_last", "channels_first")
_GIVEN = "data_format_is_given"  # in a config: False where Keras's setting made it channels_first


class Format(NamedTuple):
    """The format of a loss: whose it is, which, and on which arrays it acts."""

    owner: str
    name: str
    is_given: bool
    least_rank: int
    reads_target: bool

    def rank(self, y_true, y_pred):
        """The rank of the arrays whose axis 1 holds channels; None where the last one does."""
        if self.name == "channels_last" or keras.tree.is_nested(y_pred):
            return None
        rank = len(y_pred.shape)
        if self.reads_target and y_true is not None and not keras.tree.is_nested(y_true):
            # The truth may have an axis for its one channel, which the predictions lack.
            rank += len(y_true.shape) == rank + 1 and y_true.shape[1] == 1
        least = self.least_rank if self.is_given else max(4, self.least_rank)
        return rank if rank >= least else None


class Formatted(KerasLoss):
    """A loss or wrapper with the argument `data_format` (a mixin, the first of the bases).

    `__init__` calls `self._set_format(data_format)` after `super().__init__`. From then on
    `data_format` is one of `FORMATS`. Keras's setting acts on predictions of rank 4 and more alone,
    an argument on all that have channels, so configs keep whether it was given.
    """

    data_format: str
    _format_is_given = True
    _least_rank = 3  # of arrays that have an axis of channels

    def _set_format(self, data_format):
        """Checks and resolves the argument: what is given, else the losses inside, else Keras."""
        owner = f"{type(self).__name__} ('{self.name}')"
        if data_format is not None and data_format not in FORMATS:
            raise ValueError(
                f"The argument `data_format` of {owner} must be None, 'channels_last' or "
                f"'channels_first'. Received: {data_format!r}"
            )
        inside = formats_in(self, with_itself=False)
        names = {data_format, *(format.name for format in inside)} - {None}
        if len(names) > 1:
            found = ", ".join(f"{format.owner} {format.name!r}" for format in inside)
            raise ValueError(
                f"{owner} and the losses in it must have one data format: give all of them the "
                f"same `data_format`. Received: data_format={data_format!r}, and in it {found}"
            )
        by_axis = not names and _has_classes_first(self)
        given = data_format is not None or any(format.is_given for format in inside)
        self._format_is_given = given or by_axis
        default = "channels_first" if by_axis else keras.config.image_data_format()
        self.data_format = names.pop() if names else default

    @property
    def formats(self):
        """What decides, also for a wrapper around it: one `Format`, or none."""
        reads = getattr(self, "reads_target", getattr(self, "needs_target", True))
        given = self._format_is_given
        owner = type(self).__name__
        return [Format(owner, self.data_format, given, self._least_rank, bool(reads))]

    def get_config(self):
        return self._with_format(super().get_config())

    def _with_format(self, config):
        by_setting = self.data_format == "channels_first" and not self._format_is_given
        return {**config, _GIVEN: False} if by_setting else config

    @classmethod
    def from_config(cls, config):
        if not isinstance(config, dict):
            return super().from_config(config)  # which says what is wrong
        # Files of versions without this argument hold losses with the channels last.
        config = {"data_format": "channels_last", **config}
        given = config.pop(_GIVEN, True)
        loss = super().from_config(config)
        loss._format_is_given = bool(given)
        return loss


def formats_in(loss, with_itself=True):
    """The `Format` of each loss in `loss` that has one, down to the first on each way."""
    if with_itself and isinstance(loss, Formatted):
        return loss.formats
    return [found for child in _inside(loss) for found in formats_in(child)]


def _has_classes_first(loss):
    """Whether there is a loss of Keras's inside whose classes are on axis 1, as it says."""
    children = _inside(loss)
    return any(map(_has_classes_first, children)) if children else keras_traits(loss).axis == 1


def _inside(loss):
    """The losses that a loss is made of; none where it is no compound."""
    inside = loss.nodes_inside() if isinstance(loss, Node) else ()
    return [node.loss_itself() for node, _ in inside]


def moved(array, rank, source=1, destination=-1):
    """An array of `rank` with the channels moved; others have none and stay as they are."""
    if array is None or keras.tree.is_nested(array) or len(array.shape) != rank:
        return array
    return ops.moveaxis(array, source, destination)


def channels_last(call):
    """Decorator of the `call` of a `Formatted` loss: it is given the channels last.

    `call.of_channels_last` is the method itself, for who has moved them already.
    """

    def of_any(self, y_true, y_pred, sample_weight=None):
        arrays = [None if a is None else ops.convert_to_tensor(a) for a in (y_true, y_pred)]
        rank = next((format.rank(*arrays) for format in self.formats), None)
        arrays += [] if sample_weight is None else [ops.convert_to_tensor(sample_weight)]
        return call(self, *(array if rank is None else moved(array, rank) for array in arrays))

    decorated: Any = functools.wraps(call)(of_any)
    decorated.of_channels_last = call
    return decorated


# Batches.


def with_channels_last(batch, formats):
    """The batch with the channels last where the first of `formats` has them first.

    Targets, predictions, and weights and masks of as many axes are moved. Ids, and weights and
    masks of pixels, have one axis less, and stay as they are.
    """
    if batch.channels != "as given" or not formats:
        return batch
    rank = formats[0].rank(batch.y_true, batch.y_pred)
    return batch if rank is None else _rearranged(batch, "moved", rank, 1, -1)


def as_given(batch, for_view=False):
    """The batch with the channels where the data have them.

    For a view, which matches weights with the data from the left, those of pixels get an axis of
    length 1 beside the channels.
    """
    if batch.channels != "moved":
        return batch
    if for_view:
        rank = batch.channel_rank
        batch = batch.view(weights=lambda _, w: padded(w, rank) if len(w.shape) > 1 else w)
    if keras.tree.is_nested(batch.y_pred) or len(batch.y_pred.shape) < batch.channel_rank:
        return batch.replaced(channels="last")  # there is no such axis any more
    return _rearranged(batch, "as given", batch.channel_rank, -1, 1)


def _rearranged(batch, channels, rank, source, destination):
    """The batch with the channels of each array of `rank` axes moved; others have none."""

    def move(array):
        return moved(array, rank, source, destination)

    return batch.once(
        (channels, rank),
        lambda: batch.view(
            move, lambda _, weight: move(weight), channels=channels, channel_rank=rank
        ),
    )


_NOTE = "These shapes have the channels last; the data have them on axis 1 (`data_format`)."


@contextlib.contextmanager
def telling(batch):
    """Adds to an error in the block how the shapes in it are to be read."""
    try:
        yield
    except (ValueError, TypeError) as error:
        if batch.channels == "moved" and _NOTE not in getattr(error, "__notes__", ()):
            error.add_note(_NOTE)
        raise
