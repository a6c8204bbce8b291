"""Slices of arrays, and arrays in other units."""

import operator
from collections.abc import Sequence
from types import EllipsisType
from typing import Any, Self, TypeAlias, Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._core.alignment import fits
from combined_losses._core.batch import Batch
from combined_losses._core.checks import are_finite, as_array, shown
from combined_losses._core.compound import rescaling_of
from combined_losses._core.config import check_config, construct, read_entry
from combined_losses._core.domains import examined
from combined_losses._core.keras_types import CompositeArguments, LossLike
from combined_losses._core.layouts import PredictionsApart, as_rows
from combined_losses._numerics.arrays import ArrayLike, Tensor
from combined_losses._numerics.floats import accumulating
from combined_losses.wrappers.base import Wrapper
from combined_losses.wrappers.softmax import softmax_inside

__all__ = ["OnSlice", "Scaled"]

Cut: TypeAlias = int | slice | None  # of one axis; None is a new axis
Index: TypeAlias = tuple[Cut | EllipsisType, ...]


@keras.saving.register_keras_serializable("combined_losses")
class OnSlice(Wrapper):
    """A loss on a part of the array: columns, a region, a step of a sequence.

    Args:
        loss: as in `cl.wrappers.Wrapper`.
        index: a NumPy basic index into `y_true` and `y_pred` with the batch axis first, as
            `np.s_` gives it: integers, slices, one `...` and `None` (a new axis), for example
            `np.s_[..., 0:2]`. It must take the batch axis whole.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Sample weights and masks that have the indexed axes are indexed in the same way. Where each
    target has several predictions (`GaussianNLL`, `Pinball` of several quantiles, a loss with a
    `prediction_layout`), the index chooses targets, and each keeps its predictions. The exception
    are k predictions in columns, `(..., k)` beside one target `(..., 1)`: there the index chooses
    from the columns.

    Raises:
        ValueError: if the index is no basic index, cuts the batch axis, has more entries than the
            arrays have axes, or reaches beyond an axis.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.CompositeLoss(
    ...     {
    ...         "position": cl.wrappers.OnSlice("mse", np.s_[..., 0:2]),
    ...         "visible": cl.wrappers.OnSlice("binary_crossentropy", np.s_[..., 2:3]),
    ...     }
    ... )
    >>> loss.names
    ('position', 'visible')
    """

    def __init__(self, loss: LossLike, index: Any, **kwargs: Unpack[CompositeArguments]) -> None:
        super().__init__(loss, **kwargs)
        self.index = index
        self._index = _basic_index(index, self.name)

    def see(self, batch: Batch, label: str) -> Batch:
        batch = self.one_array(batch, label)
        view = self._targets_view(batch, label)
        if view is None:
            return self._sliced(batch, label)
        sliced = self._sliced(view.batch, label)
        if isinstance(self._last_entry(batch), int) or len(sliced.shape) < 2:
            # The index took the axis of the targets away: each target becomes a row of its own.
            return as_rows(sliced)
        return view.together(sliced)

    def _targets_view(self, batch: Batch, label: str) -> PredictionsApart | None:
        """The batch whose targets are indexed; None if targets and predictions are, as they are."""
        y_true, y_pred = batch.y_true, batch.y_pred
        same = y_true is not None and len(y_true.shape) == len(y_pred.shape)
        if self._layout is None or (same and y_true.shape[-1] == 1 and not self._is_of_one(batch)):
            return None
        return self._predictions_apart(batch, label)

    def _last_entry(self, batch: Batch) -> Cut:
        """The entry of the index for the last axis of the targets."""
        given = sum(item is not Ellipsis and item is not None for item in self._index)
        complete = Ellipsis in self._index or given == len(batch.y_true.shape)
        last = self._index[-1] if self._index else Ellipsis
        return slice(None) if isinstance(last, EllipsisType) or not complete else last

    def _is_of_one(self, batch: Batch) -> bool:
        """Whether the index means the one target of each row, not columns of its predictions.

        Targets `(..., 1)` beside predictions `(..., k)` are indexed alike, so that some of the
        columns can be chosen. In blocks, one column alone would be no complete prediction, so an
        index of one column means the target.
        """
        last = self._last_entry(batch)
        size = batch.y_pred.shape[-1]
        if self._layout != "blocks" or last is None or size is None:
            return False
        columns = range(size)[last] if _reaches(last, size) else 0
        return isinstance(columns, int) or len(columns) == 1

    def _sliced(self, batch: Batch, label: str) -> Batch:
        y_true, y_pred, shape = batch.y_true, batch.y_pred, batch.shape
        if y_true is not None and len(y_true.shape) != len(shape):
            raise ValueError(
                f"Component '{label}' is a slice of arrays of one rank. Received: y_true of shape "
                f"{tuple(y_true.shape)} and y_pred of shape {tuple(y_pred.shape)}"
            )
        index = _full_index(self._index, shape, label)
        self._examine(index, shape, label)
        like = y_pred if y_true is None or not batch.own_axes else y_true

        def index_weight(what: str, weight: Tensor) -> Tensor:
            fits(label, what, weight, like)  # raises where the sizes differ
            return _cut(weight, _index_of_weight(index, weight))

        return batch.view(
            lambda array: _cut(array, index),
            index_weight,
            # Without its last axis, an array has the rank that weights of its rows had before.
            tells_elements=batch.tells_elements or isinstance(index[-1], int),
        )

    def _examine(self, index: Index, shape: tuple[Any, ...], label: str) -> None:
        """Notes for `cl.diagnose` that a softmax is given only some of the channels."""
        facts = examined()
        softmax = None if facts is None else softmax_inside(self.loss)
        if facts is None or softmax is None:
            return
        first = getattr(softmax, "data_format", None) == "channels_first" and len(shape) > 3
        axis = 1 if first else len(shape) - 1
        count, cut = shape[axis], [item for item in index if item is not None][axis]
        if not isinstance(cut, slice) or len(range(*cut.indices(count))) != count:
            facts.add_note(
                label,
                "part of a softmax",
                f"its softmax sees a part of the {count} channels alone, {cut!r}.",
            )

    def get_config(self) -> dict[str, Any]:
        # Slices and `...` are not JSON; numbers and lists of numbers are.
        items = [
            list(_ends(item)) if isinstance(item, slice) else "..." if item is Ellipsis else item
            for item in self._index
        ]
        return {**super().get_config(), "index": items}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        check_config(cls, config)
        items = read_entry(cls, "index", config["index"])
        if not isinstance(items, (list, tuple)) or any(
            isinstance(item, list) and len(item) != 3 for item in items
        ):
            raise ValueError(
                f"The entry 'index' of the config of {cls.__name__} must be a list of numbers, "
                f"'...' and lists [start, stop, step]. Received: {shown(items)}"
            )
        index = tuple(
            slice(*item) if isinstance(item, list) else Ellipsis if item == "..." else item
            for item in items
        )
        return construct(cls, {**config, "index": index})


def _basic_index(index: Any, name: str) -> Index:
    """The entries of a NumPy basic index, with Python integers; raises on any other index."""
    try:
        items = tuple(map(_plain, index if isinstance(index, tuple) else (index,)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The argument `index` of OnSlice ('{name}') must be a NumPy basic index of integers, "
            f"slices, None and one `...`, for example np.s_[..., 0:2]. Received: {index!r}"
        ) from error
    if items.count(Ellipsis) > 1:
        raise ValueError(
            f"The argument `index` of OnSlice ('{name}') may hold one `...`. Received: {index!r}"
        )
    if items and items[0] is not Ellipsis and items[0] != slice(None):
        raise ValueError(
            f"The argument `index` of OnSlice ('{name}') must take the batch axis whole: begin "
            f"with `:` or `...`. Received: {index!r}"
        )
    return items


def _plain(item: Any) -> Cut | EllipsisType:
    """One entry of a basic index, with Python integers; raises on any other entry."""
    if item is Ellipsis or item is None:
        return item
    if isinstance(item, bool):
        raise TypeError
    if not isinstance(item, slice):
        return operator.index(item)
    ends = [None if end is None else operator.index(end) for end in _ends(item)]
    if ends[2] == 0:
        raise ValueError
    return slice(*ends)


def _ends(item: slice) -> tuple[Any, Any, Any]:
    return item.start, item.stop, item.step


def _full_index(items: Index, shape: tuple[Any, ...], label: str) -> tuple[Cut, ...]:
    """One entry for each axis and None for each new axis, checked against the static shape."""
    given = sum(item is not Ellipsis and item is not None for item in items)
    if given > len(shape):
        raise ValueError(
            f"The index of component '{label}' has {given} entries for arrays of {len(shape)} "
            f"axes. Received: y_pred of shape {shape}"
        )
    at = items.index(Ellipsis) if Ellipsis in items else len(items)
    rest = [slice(None)] * (len(shape) - given)
    entries = (*items[:at], *rest, *items[at + 1 :])
    full = tuple(item for item in entries if not isinstance(item, EllipsisType))
    if full[0] != slice(None):  # also where a new axis would come first
        raise ValueError(
            f"The index of component '{label}' must take the batch axis whole, and its `...` "
            f"stands for no axis here. Received: y_pred of shape {shape}"
        )
    axes = [item for item in full if item is not None]
    for axis, (item, size) in enumerate(zip(axes, shape, strict=True)):
        if size is not None and not _reaches(item, size):
            raise ValueError(
                f"The index of component '{label}' is out of range on axis {axis}: it asks for "
                f"{item!r} of {size} entries. Received: y_pred of shape {shape}"
            )
    return full


def _reaches(item: int | slice, size: int) -> bool:
    if not isinstance(item, slice):
        return -size <= item < size
    ends = [end for end in (item.start, item.stop) if end is not None]
    return all(-size <= end <= size for end in ends) and len(range(*item.indices(size))) > 0


def _index_of_weight(index: Sequence[Cut], weight: Tensor) -> list[Cut]:
    """The index cut to the axes of a weight or mask; axes of length 1 are taken whole."""
    sizes = iter(weight.shape)
    cut: list[Cut] = []
    for item in index:
        size = 1 if item is None else next(sizes, "none")
        if size == "none":  # weights match from the left, and have no further axes
            break
        cut.append(_all_of(item) if size == 1 else item)
    while cut and cut[-1] is None:
        cut.pop()
    return cut


def _cut(array: Tensor, index: Sequence[Cut]) -> Tensor:
    """`array[index]`; slices may run backwards, which torch does not allow."""
    index = list(index)
    old = [place for place, item in enumerate(index) if item is not None]
    for axis, place in enumerate(old):
        item = index[place]
        if not isinstance(item, slice) or (item.step or 1) > 0:
            continue
        if item.start is None and item.stop is None:
            array, index[place] = ops.flip(array, axis), slice(None, None, -item.step)
        else:
            array = ops.take(array, list(range(*item.indices(array.shape[axis]))), axis=axis)
            index[place] = slice(None)
    return array[tuple(index)]


def _all_of(item: Cut) -> Cut:
    return item if item is None else slice(None) if isinstance(item, slice) else 0


@keras.saving.register_keras_serializable("combined_losses")
class Scaled(Wrapper):
    """A loss in other units: both arguments divided by a scale.

    Predictions that are not in the unit of the target are changed as their loss says: the
    log-variances of `GaussianNLL` are lowered by `2 log |scale|`. A loss of your own says so by its
    method `rescaled`, see `cl.losses.Loss`.

    Args:
        loss: as in `cl.wrappers.Wrapper`.
        scale: a number, or an array that broadcasts against one sample, such as one number for
            each column. Finite, not 0.
        reduction, name, dtype: as in `cl.wrappers.Wrapper`.

    Raises:
        ValueError: if the scale is 0 or not finite.

    Example:

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.wrappers.Scaled("mse", 10.0)
    >>> float(loss(np.array([[30.0]]), np.array([[10.0]])))
    4.0
    """

    def __init__(
        self, loss: LossLike, scale: ArrayLike, **kwargs: Unpack[CompositeArguments]
    ) -> None:
        super().__init__(loss, **kwargs)
        values = as_array(scale)
        if not are_finite(values) or np.any(values.astype("float32") == 0):
            raise ValueError(
                f"The argument `scale` of Scaled ('{self.name}') must be a finite number or array "
                f"without a 0. Received: {scale!r}"
            )
        self.scale = scale

    @classmethod
    def from_data(cls, loss: LossLike, y: ArrayLike, **kwargs: Unpack[CompositeArguments]) -> Self:
        """The loss in units of the standard deviation of each element of `y`, `(samples, ...)`.

        Missing labels (NaN) are left out.
        """
        values = np.ma.masked_invalid(np.asarray(y, "float64"))
        deviation = np.ma.filled(values.std(axis=0), 0.0)
        if not np.all(deviation > 0):
            raise ValueError(
                "Scaled.from_data needs targets that vary in every element; leave out what is "
                f"constant, or give `scale` yourself. Received: standard deviations {deviation}"
            )
        return cls(loss, deviation.tolist(), **kwargs)

    def see(self, batch: Batch, label: str) -> Batch:
        batch = self.one_array(batch, label)
        view = self._predictions_apart(batch, label)
        scaled = batch if view is None else view.batch
        # Without a target, a loss of several predictions does not tell which axis is the targets'.
        of_one = batch.y_true is None and rescaling_of(self.loss) is not None
        self._check_fit(() if of_one else scaled.shape[1:], label)
        dtype = accumulating(self.dtype)
        alone = np.size(self.scale) == 1
        scale = ops.convert_to_tensor(np.ravel(self.scale)[0] if alone else self.scale, dtype=dtype)
        of_targets = scale if view is None or alone else ops.expand_dims(scale, -1)
        scaled = scaled.replaced(
            y_true=None if batch.y_true is None else ops.cast(batch.y_true, dtype) / scale,
            y_pred=self._rescaled(ops.cast(scaled.y_pred, dtype), of_targets),
        )
        return scaled if view is None else view.together(scaled)

    def _rescaled(self, y_pred: Tensor, scale: Tensor) -> Tensor:
        """The predictions in the other unit; the loss inside may say how they change."""
        judge = rescaling_of(self.loss)
        return y_pred / scale if judge is None else judge.rescaled(y_pred, scale)

    def _check_fit(self, sample: tuple[Any, ...], label: str) -> None:
        """Raises if the scale would give the data another shape, or lie along the batch axis."""
        shape = np.shape(self.scale) if np.size(self.scale) > 1 else ()
        pairs = zip(shape[::-1], sample[::-1], strict=False)
        if len(shape) > len(sample) or any(n not in (1, size) and size for n, size in pairs):
            raise ValueError(
                f"The scale of component '{label}' must broadcast against one sample, of shape "
                f"{sample}. Received: scale of shape {shape}"
            )
