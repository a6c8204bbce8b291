"""One batch as the components of a composite see it: converted, aligned, weights and mask apart."""

import contextlib
import copy

import keras
import numpy as np
from keras import ops

from combined_losses import _backend as backend
from combined_losses._core import checks
from combined_losses._core.alignment import align, fit_from_left
from combined_losses._core.masks import read_mask, with_mask
from combined_losses._core.owned import warning_of_reads

# What stands in for a prediction in a row of weight 0, and for a number that is not finite there.
_NEUTRAL = 0.5


class Batch:
    """`y_true`, `y_pred`, `sample_weight` and the mask of one call.

    The conversion to a dtype is done once for all components of that dtype. `name` is that of the
    loss that is given them, for messages; `source` the model, its inputs and its outputs.
    """

    def __init__(self, y_true, y_pred, sample_weight=None, name="loss", source=(None, None, None)):
        self.mask = read_mask(y_pred)  # before any cast: a cast drops it
        self.y_true = _to_tensors(name, "y_true", y_true)
        self.y_pred = _to_tensors(name, "y_pred", y_pred, required=True)
        self.sample_weight = _to_tensors(name, "sample_weight", _alone(sample_weight))
        self.model, self.x, self.outputs = source
        # "labels" that are missing (a loss must honour them), "void" ones that the data no longer
        # has (it need not), or "propagated" by Keras (a loss that cannot honour it warns).
        self.mask_kind = "propagated"
        self.elements = 1  # how many elements a value was averaged over before they were told apart
        self.tells_elements = False  # weights of single elements count, as those of `labels` do
        self.own_axes = 0  # how many last axes predictions have beyond those of the targets: `View`
        self.places = None  # of the outputs of the model, see `outputs.places_of`
        self.output_is_chosen = False  # by a wrapper that reads one output of several
        self.channels = "as given"  # or "moved" or "last", see `data_format`
        self.channel_rank = 0  # of the arrays whose channels were moved
        self.is_one_output = False  # of a model of several: the finest of `DeepSupervision`
        self.replicas = backend.replica_count()
        self.asks_presence = False  # by a rule around it, see `presence`
        self.captured = None  # the step of training that may be asked for gradients, where there is
        self.training = False  # in a step of training of a tracked model, where weights move
        self.weights_are_constants = False  # see `CompositeLoss.evaluate`
        self.is_unthreaded = False  # in a step on JAX that cannot read or keep variables
        self.may_be_skipped = False  # by a composite around, see `on_nonfinite`
        self.skips_nothing = False  # who asks for values wants them as they are
        self._share = None
        self._inputs = {}

    def replaced(self, **data):
        """The same batch with other `y_true`, `y_pred`, `sample_weight` or `mask`."""
        batch = copy.copy(self)
        vars(batch).update(data, _inputs={})
        return batch

    def kept(self, key, make):
        """What `make()` gives, made once for all components of this batch."""
        if key not in self._inputs:
            self._inputs[key] = make()
        return self._inputs[key]

    @property
    def weighted(self):
        return self.sample_weight is not None or self.mask is not None

    def neutralised(self, tensor, neutral=None, axis=-1):
        """`tensor` of this batch with `neutral` where the weight is 0.

        With None only what is not finite is replaced there. `axis` is as in `Traits`.
        """
        keep = self.keep(tensor, axis)
        if keep is None:
            return tensor
        if neutral is None:
            if not checks.is_float(tensor):
                return tensor
            keep, neutral = ops.logical_or(keep, ops.isfinite(tensor)), _NEUTRAL
        return ops.where(keep, tensor, ops.cast(neutral, tensor.dtype))

    def cut(self, y_pred, axis=-1):
        """Predictions as they are, without a way for the gradient to those of weight 0.

        What is not finite there is replaced.
        """
        keep = self.keep(y_pred, axis)
        if keep is None or not checks.is_float(y_pred):
            return y_pred
        finite = ops.where(ops.isfinite(y_pred), y_pred, ops.cast(_NEUTRAL, y_pred.dtype))
        return ops.where(keep, y_pred, ops.stop_gradient(finite))

    def harmless(self):
        """The same batch, for a loss of which nothing is known and that may read any row of it."""
        if not self.weighted:
            return self
        return self.replaced(
            y_true=keras.tree.map_structure(self.neutralised, self.y_true),
            y_pred=keras.tree.map_structure(self.cut, self.y_pred),
        )

    def with_target(self):
        """The same batch, with zeros as the target of terms that read none."""
        if self.y_true is not None:
            return self
        return self.replaced(y_true=keras.tree.map_structure(ops.zeros_like, self.y_pred))

    def unweighted(self):
        """The same batch, for a loss that has applied weights and mask by itself."""
        return self.replaced(sample_weight=None, mask=None)

    def of_floats(self, dtype):
        """The same batch with predictions that are whole numbers in `dtype`, as Keras casts them.

        For what computes with predictions before a loss does.
        """
        if all(map(checks.is_float, keras.tree.flatten(self.y_pred))):
            return self
        return self.map_predictions(
            lambda leaf: leaf if checks.is_float(leaf) else ops.cast(leaf, dtype)
        )

    def map_predictions(self, function):
        """The same batch with `function` applied to the predictions."""
        # The masks go along, for a loss that reads them itself.
        if keras.tree.is_nested(self.y_pred):
            mapped = keras.tree.map_structure(
                lambda leaf: with_mask(function(leaf), read_mask(leaf)), self.y_pred
            )
        else:
            mapped = with_mask(function(self.y_pred), self.mask)
        return self.replaced(y_pred=mapped)

    def map_elements(self, function):
        """The same batch with `function` applied to targets, predictions, and weights of elements.

        Sample weights and masks of fewer axes, of samples or rows, stay as they are. A function
        counts axes from the left, because predictions may have some of their own at the end.
        """
        shape = self.shape

        def of_elements(weight):
            if weight is None or len(weight.shape) < len(shape):
                return weight
            if all(n == 1 for n in weight.shape[1:]):
                return ops.reshape(weight, (-1,))  # of samples
            if any(n == 1 != size for n, size in zip(weight.shape, shape, strict=True)):
                weight = ops.broadcast_to(weight, self.sizes)
            return function(weight)

        return self.replaced(
            y_true=function(self.y_true),
            y_pred=function(self.y_pred),
            sample_weight=of_elements(self.sample_weight),
            mask=of_elements(self.mask),
        )

    @property
    def shape(self):
        """The static shape of the targets, read from the predictions, which know more of it."""
        return tuple(self.y_pred.shape)[: len(self.y_pred.shape) - self.own_axes]

    @property
    def sizes(self):
        """`shape` with tensors for what is not static."""
        return tuple(ops.shape(self.y_pred))[: len(self.shape)]

    @property
    def size(self):
        """The static batch size, or None."""
        shape = keras.tree.flatten(self.y_pred)[0].shape
        return shape[0] if len(shape) else None

    @property
    def count(self):
        """The batch size, a tensor where it is not static; 1 of predictions without axes."""
        first = keras.tree.flatten(self.y_pred)[0]
        return ops.shape(first)[0] if len(first.shape) else 1

    @property
    def share(self):
        """This replica's share of the batch that all replicas see together."""
        if self.replicas == 1:
            return 1.0
        if self._share is None:
            size = ops.cast(self.count, "float32")
            self._share = size / backend.global_sum(size)
        return self._share

    def noting_reads(self, label):
        """The block calls component `label`: warns of what is read in a trace and is nobody's."""
        if self.model is None or not backend.is_compiling():
            return contextlib.nullcontext()
        return warning_of_reads(self.model, label)

    def zero(self):
        """0 with a gradient of 0 by the predictions, whatever these are."""
        nothing = [
            ops.sum(ops.where(ops.zeros_like(leaf, dtype="bool"), leaf, ops.zeros_like(leaf)))
            for leaf in keras.tree.flatten(self.y_pred)
            if checks.is_float(leaf)
        ]
        return sum(nothing[1:], nothing[0]) if nothing else ops.zeros(())

    def weights(self):
        """`(what, tensor)` of the sample weights and the mask, where given."""
        pairs = (("sample_weight", self.sample_weight), ("mask", self.mask))
        return [(what, weight) for what, weight in pairs if weight is not None]

    def masked_too(self, mask, values):
        """The batch with its mask and another one, which a loss has put on its values.

        A mask that the values do not carry was answered for by `Leaf.check_weights`.
        """
        if mask is None:
            return self
        mask = ops.cast(fit_from_left(mask, values), "bool")
        own = None if self.mask is None else fit_from_left(self.mask, values)
        if own is not None:
            mask = ops.where(mask, own, ops.zeros_like(own))  # a mask of ours may be a share
        return self.replaced(mask=mask)

    def inputs(self, dtype, traits, neutral_target=None, aligned=True):
        """`(y_true, y_pred)` in `dtype`, of one rank, without what can do harm in rows of weight 0.

        A NaN in a row of weight 0 has to go *before* the loss: a `where` on the values alone
        leaves the gradient 0 * NaN = NaN, also where only the derivative is not finite. So targets
        (they may be no valid ones at all, such as a label -1) become `neutral_target` there, and
        predictions a constant. With None the loss may read these rows for the sake of others: only
        what is not finite is replaced, and the predictions get no gradient.

        Without `aligned` each has the rank that it was given in.
        """
        casts = (traits.casts_target, traits.casts_prediction)
        own = (traits.has_channels, *casts, traits.axis, traits.ignored)
        key = (dtype, neutral_target, *own, aligned)
        if key not in self._inputs:
            y_true = self.y_true
            if traits.casts_target:
                y_true = keras.tree.map_structure(lambda t: _cast(t, dtype), y_true)
            y_pred = self.y_pred
            if traits.casts_prediction:
                y_pred = keras.tree.map_structure(lambda t: ops.cast(t, dtype), y_pred)
            if self.weighted:
                y_true = keras.tree.map_structure(
                    lambda t: self._neutral_target(t, neutral_target, traits), y_true
                )
                y_pred = keras.tree.map_structure(
                    lambda t: (
                        self.cut(t, traits.axis)
                        if neutral_target is None
                        else self.neutralised(t, _NEUTRAL, traits.axis)
                    ),
                    y_pred,
                )
            pair = (y_true, y_pred)
            self._inputs[key] = align(*pair, traits.has_channels) if aligned else pair
        return self._inputs[key]

    def _neutral_target(self, y_true, neutral, traits):
        found = self.neutralised(y_true, neutral, traits.axis)
        if found is None or traits.ignored is None:
            return found
        # With a valid label instead its row would count among the valid ones.
        ignored = ops.equal(y_true, ops.cast(traits.ignored, y_true.dtype))
        return ops.where(ignored, y_true, found)

    def keep(self, tensor, axis):
        """Where `tensor` counts; None where no weights and no mask are of its shape."""
        keep = None
        if tensor is None:
            return None
        for _, weight in self.weights():
            weight = fit_from_left(self._beside_classes(weight, tensor, axis), tensor)
            if weight is not None:
                used = ops.not_equal(weight, ops.cast(0, weight.dtype))
                keep = used if keep is None else ops.logical_and(keep, used)
        return keep

    def _beside_classes(self, weight, tensor, axis):
        """A weight with an axis of length 1 where `tensor` has the classes and values have none."""
        rank = len(tensor.shape)
        if axis == -1 or keras.tree.is_nested(self.y_pred) or rank != len(self.y_pred.shape):
            return weight
        axis %= rank
        while len(weight.shape) >= rank and weight.shape[-1] == 1:
            weight = ops.squeeze(weight, -1)
        return ops.expand_dims(weight, axis) if axis < len(weight.shape) < rank else weight


def _alone(weight):
    """The one array of a list or tuple, as `fit` hands on `sample_weight=[w]` of one output."""
    single = isinstance(weight, (list, tuple)) and len(weight) == 1
    return weight[0] if single and hasattr(weight[0], "shape") else weight


def _to_tensors(name, what, values, required=False):
    """Tensors in the structure of `values`; a list of numbers is an array, not a structure."""
    if values is None and not required:
        return None
    leaves = keras.tree.flatten(values)
    if leaves and all(isinstance(leaf, (int, float, np.number, np.bool_)) for leaf in leaves):
        return checks.to_tensor(name, what, values)
    return keras.tree.map_structure(
        lambda leaf: leaf if leaf is None and not required else checks.to_tensor(name, what, leaf),
        values,
    )


def _cast(tensor, dtype):
    return tensor if tensor is None else ops.cast(tensor, dtype)
