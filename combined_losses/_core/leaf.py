"""A named loss and the one way from it to a number."""

import functools
import inspect
import warnings

import keras
from keras import ops

from combined_losses._backend import backend, keras_private
from combined_losses._core import checks, domains, layouts
from combined_losses._core.alignment import align, fit_from_left, fits
from combined_losses._core.data_format import Formatted, as_given, telling, with_channels_last
from combined_losses._core.domains import examined
from combined_losses._core.evaluation import Evaluation
from combined_losses._core.labels import OfLabels
from combined_losses._core.masks import read_mask, with_mask
from combined_losses._core.named_errors import NamedErrors
from combined_losses._core.observing import Observation, observed
from combined_losses._core.presence import presence
from combined_losses._core.reduction import PER_COMPONENT, REDUCTIONS, per_sample, reduce_values
from combined_losses._core.traits import Traits, keras_function
from combined_losses._numerics.floats import accumulating

_ONE_REDUCTION = set()
_MOST_KNOWN = 100


def one_reduction(call):
    """Marks a `__call__` that reduces as this library does: a child that has it is not opaque."""
    _ONE_REDUCTION.add(call)
    return call


class Leaf(OfLabels):
    """A child loss of a composite, or a loss of this library on its own.

    Args:
        name: the name that every message gives.
        loss: a `keras.losses.Loss`.
        traits: what may be relied on of it, `Traits`.
        opaque: whether it is called whole; default: where it has a `__call__` of its own.
    """

    def __init__(self, name, loss, traits, opaque=None):
        self.name = name
        self.loss = loss
        self.traits = traits
        self.needs_target = getattr(loss, "needs_target", True)
        self.reads_target = getattr(loss, "reads_target", self.needs_target)
        call = type(loss).__call__
        ours = call in _ONE_REDUCTION
        own_call = keras_private.calls_for_itself(loss) and not ours
        self.opaque = own_call if opaque is None else opaque
        # Our own losses compute in float32 or more, whatever they are given.
        self.dtype = accumulating(loss.dtype) if ours else loss.dtype
        self.weighs = ours and "sample_weight" in inspect.signature(type(loss).call).parameters
        # The formula of a loss with a data format, for data that have the channels last.
        self._of_last = getattr(_call_of(loss), "of_channels_last", None)
        # What stands for a target of weight 0; None: rows may see each other.
        self._neutral = None if traits.couples_batch else traits.neutral_target
        self._warned = set()
        # What the values of data with known shapes and dtypes look like, see `_values_of_known`.
        self._known = {}

    @property
    def reader(self):
        """The function or loss of the user's that is called, as it was given."""
        return getattr(self.loss, "function", self.loss)

    def loss_itself(self):
        return self.loss

    def leaves(self):
        return [self]

    def find_readers(self):
        return [self.reader]

    def check_lambdas(self, label):
        if hasattr(self.loss, "check_no_lambda"):  # a function of the user's as a loss
            self.loss.check_no_lambda(label)

    def evaluate(self, batch, reduction=PER_COMPONENT, label=None):
        """The `Evaluation` of a `Batch`; see `reduced`."""
        label, counted = label or self.name, batch
        values = None if batch.weighted else self._values_of_known(batch)
        if values is None:
            values, counted = self.unreduced(batch, reduction != PER_COMPONENT, label)
            few = len(self._known) < _MOST_KNOWN  # sequences may have any length
            if few and not batch.weighted and self._is_plain(batch, counted, values):
                self._known[_signature(batch)] = (values.shape, values.dtype)
        total = self.reduce(values, counted, reduction, label)
        return Evaluation(
            total, present=presence(batch, values, counted) if batch.asks_presence else None
        )

    # Most checks depend on the shapes and dtypes of the data alone. What has passed them once, and
    # needs no preparation, goes straight to the loss from then on.

    def _values_of_known(self, batch):
        """The values of data without weights that have passed all checks before; else None."""
        known = self._known.get(_signature(batch))
        is_watched = observed() is not None or examined() is not None or batch.notes_reads
        if known is None or is_watched:
            return None
        y_true, y_pred = batch.inputs(self.dtype, self.traits, self._neutral)
        call = self.loss.call if self._of_last is None else self._of_last.__get__(self.loss)
        try:
            values = ops.convert_to_tensor(call(y_true, y_pred))
        except Exception:
            return None  # the long way names the component
        shape, dtype = known
        if values.shape != shape or (self.traits.masks_values and read_mask(values) is not None):
            return None
        return values if values.dtype == dtype else ops.cast(values, dtype)

    def _is_plain(self, batch, counted, values):
        """Whether such data need nothing but a call of the loss, and have shapes that are known."""
        if self.opaque or counted is not batch or counted.weighted or not len(values.shape):
            return False
        if self.traits.layout is not None or batch.channels != "as given":
            return False
        y_true, y_pred = batch.inputs(self.dtype, self.traits, self._neutral)
        if keras.tree.is_nested(y_pred) or y_true is None or keras.tree.is_nested(y_true):
            return False
        shapes = [batch.y_true.shape, batch.y_pred.shape]
        is_aligned = [y_true.shape, y_pred.shape] == shapes and len(y_pred.shape) > 1
        return is_aligned and None not in (*shapes[0], *shapes[1], *values.shape)

    def reduced(self, batch, reduction=PER_COMPONENT, label=None):
        """The value of this component, `()`.

        `reduction` is imposed, or `PER_COMPONENT`: the loss's own. Imposed "none" gives one value
        for each sample, `(batch,)`; the loss's own "none" gives its values as they are. `label` is
        the name for messages where this component is part of others.
        """
        return self.evaluate(batch, reduction, label).total

    def reduce(self, values, batch, reduction, label):
        """The number that values become; `batch` has their weights and mask."""
        imposed = reduction != PER_COMPONENT
        reduction = reduction if imposed else self.loss.reduction
        if reduction not in REDUCTIONS:
            checks.check_reduction(label, reduction, REDUCTIONS)
        if len(values.shape):
            reduced = reduce_values(values, batch, reduction)
            return per_sample(reduced) if imposed and len(reduced.shape) else reduced
        if imposed and reduction in ("none", None):
            raise ValueError(
                f"Component '{label}' returns one number for the whole batch and cannot be "
                'had per sample, which reduction="none" needs: return values that begin with the '
                "batch axis. Received: values of shape ()"
            )
        return self._scale_scalar(values, batch)

    def unreduced(self, batch, imposed, label):
        """The values in float32 or more, and the batch whose weights and mask are theirs."""
        checks.check_single_weight(label, batch.sample_weight)
        batch = self._arranged(batch)
        with telling(batch):
            of_labels = self._sees_elements(batch)
            values, batch = (self._of_labels if of_labels else self.values)(batch, label)
            return self.accounted(values, batch, imposed, label)

    def _arranged(self, batch):
        """The batch with the channels where the loss wants them."""
        if isinstance(self.loss, Formatted) and self.loss.formats:
            batch = with_channels_last(batch, self.loss.formats)
            # A `call` of a subclass of the user's is given the data as they are.
            return batch if self._of_last is not None else as_given(batch, for_view=True)
        return batch if self.traits.reads_last and not self.opaque else as_given(batch)

    def accounted(self, values, batch, imposed, label):
        """Values as they are reduced, and the batch with the mask that the loss has put on them."""
        mask = self._own_mask(values)  # before the cast, which drops it
        values = ops.cast(values, accumulating(values.dtype))
        self.check_weights(values, batch, imposed, label)
        if mask is not None:
            checks.check_own_mask(label, mask, values)
        return values, batch.masked_too(mask, values)

    def values(self, batch, label):
        """The values, and the batch without the weights and mask that they contain already."""
        if self.opaque:
            return self._call_whole(batch, label)
        if batch.weighted and self.weighs:
            return self._call_with_weights(batch, label)
        neutral = self._neutral
        values = self._of_neutral(batch, neutral, label)
        if not batch.weighted or neutral is None:
            return values, batch
        if any(not _fits(label, what, weight, values, batch) for what, weight in batch.weights()):
            # The loss has reduced over rows of weight 0, so neutral ones would bias it.
            values = self._call(batch, None, label)
        return values, batch

    def _call_with_weights(self, batch, label):
        """A loss gets the weights that act inside of it, see `_core.loss.Loss`."""
        if self.traits.couples_batch:
            inside, rest = batch.weights(), batch
        else:
            pairs = batch.weights()
            inside = [(what, w) for what, w in pairs if any(n != 1 for n in w.shape[1:])]
            rest = batch.replaced(**{what: None for what, _ in inside})
        _, y_pred = align(batch.y_true, batch.y_pred, self.traits.has_channels)
        of_samples = self.traits.couples_batch and len(y_pred.shape) > 1
        like = y_pred[:, 0] if of_samples else y_pred
        product = None
        for what, weight in inside:
            fitted = fit_from_left(weight, like)
            if fitted is None:
                shapes = f"{tuple(weight.shape)} and y_pred of shape {tuple(y_pred.shape)}"
                raise ValueError(
                    f"The {what} of component '{label}' must have the shape of the predictions "
                    f"from the left. Received: {what} of shape {shapes}"
                )
            fitted = ops.broadcast_to(ops.cast(fitted, self.dtype), ops.shape(like))
            product = fitted if product is None else product * fitted
        neutral = self.traits.neutral_target
        return self._of_neutral(batch, neutral, label, sample_weight=product), rest

    def _of_neutral(self, batch, neutral, label, **weight):
        """The values; a loss that masks them by itself sees the data as they are."""
        values = self._call(batch, neutral, label, **weight)
        replaced = batch.weighted and neutral is not None and self.traits.ignored is None
        if replaced and self._own_mask(values) is not None:
            return self._call(batch, None, label, **weight)
        return values

    def _own_mask(self, values):
        """The mask that the loss has put on its values."""
        return read_mask(values) if self.traits.masks_values and not self.opaque else None

    def _call(self, batch, neutral_target, label, **weight):
        traits = self.traits
        y_true, y_pred = batch.inputs(self.dtype, traits, neutral_target)
        if self.needs_target:
            checks.check_target(label, y_true)
        if self.traits != Traits():
            checks.check_single(label, y_true if self.needs_target else None, y_pred)
        if not keras.tree.is_nested(y_pred) and not keras.tree.is_nested(y_true):
            if self.traits.same_shape:
                checks.check_equal_shapes(label, y_true, y_pred)
            if self.traits.layout is not None and self.needs_target:
                y_true = layouts.beside(y_true, y_pred, self.traits.layout, label)
            if self.traits.elementwise and len(y_pred.shape) == 1:
                # (N,) is a batch of N numbers, not one sample of N elements.
                y_true, y_pred = ops.expand_dims(y_true, -1), ops.expand_dims(y_pred, -1)
        other_shape = self.traits != Traits() and not self.traits.same_shape
        named = NamedErrors(label, None if other_shape else y_true, y_pred)
        with named, batch.noting_reads(label):
            domains.examine(label, self.loss, batch, y_true, y_pred, self.traits.axis)
            values = self._values_of_mended(batch, neutral_target, (y_true, y_pred), weight)
        self._note(label, batch, y_true, y_pred, values)
        checks.check_values(label, values, batch.size)
        return values

    def _values_of_mended(self, batch, neutral_target, pair, weight):
        """The values; while `cl.diagnose` examines, also of targets that Keras refuses."""
        if domains.examined() is None or keras_function(self.loss) is None:
            return self._values_of(batch, neutral_target, pair, weight)
        y_true, y_pred = pair
        nearest = domains.mended(self.loss, y_true, y_pred, self.traits.axis)
        mended = (y_true if nearest is None else nearest, y_pred)
        if self.traits.takes_ids:  # TensorFlow would raise when the trace is run
            return self._values_of(batch, neutral_target, mended, weight)
        try:
            return self._values_of(batch, neutral_target, pair, weight)
        except Exception:
            return self._values_of(batch, neutral_target, mended, weight)

    def _values_of(self, batch, neutral_target, aligned, weight):
        """The values of data of one rank, or of what was given where the loss aligns it by itself.

        Most losses would broadcast (N,) against (N, 1). One that squeezes the axis away would do so
        where it finds none: it fails, or its values have an axis of N that the data have not.
        """

        formula = self.loss.call
        if self._of_last is not None:
            formula = functools.partial(self._of_last, self.loss)

        def call(pair):
            return ops.convert_to_tensor(formula(*pair, **weight))

        given = aligned
        if self.traits == Traits():
            given = batch.inputs(self.dtype, self.traits, neutral_target, aligned=False)
        if list(map(_shape, given)) == list(map(_shape, aligned)):
            return call(aligned)
        try:
            values = call(aligned)
        except Exception:
            return call(given)
        return values if checks.has_axes_of(values, aligned[1]) else call(given)

    def _call_whole(self, batch, label):
        accepts = "sample_weight" in inspect.signature(type(self.loss).__call__).parameters
        weight = {"sample_weight": batch.sample_weight} if accepts else {}
        if batch.mask_kind == "labels":
            raise ValueError(
                f"Component '{label}' has a `__call__` of its own, which no mask of missing labels "
                "reaches: give its values in `call` instead, or take it out of Masked. "
                f"Received: {self.loss!r}"
            )
        seen = batch.harmless()
        y_true, y_pred = seen.y_true, seen.y_pred
        if not keras.tree.is_nested(y_pred):
            y_pred = with_mask(y_pred, batch.mask)  # which another view of them has lost
        # Whatever it computes and by which other losses, none of it scales for the replicas.
        domains.examine(label, self.loss, batch, y_true, y_pred)
        with NamedErrors(label, y_true, y_pred), backend.as_one_replica():
            values = ops.convert_to_tensor(self.loss(y_true, y_pred, **weight))
        self._note(label, batch, y_true, y_pred, values)
        checks.check_values(label, values, batch.size)
        return values, batch.unweighted() if accepts else batch

    def _note(self, label, batch, y_true, y_pred, values):
        """Leaves the `Observation` of a component to who is `observing`."""
        found = observed()
        if found is not None:
            masked = batch.mask is not None and batch.mask_kind == "propagated"
            weights = ["sample weights"] if batch.sample_weight is not None else []
            weights += ["mask"] if masked else []
            shapes = (_shape(y_true), _shape(y_pred), tuple(values.shape))
            found[label] = Observation(*shapes, tuple(weights), self.traits)

    def check_weights(self, values, batch, imposed, label):
        """Says where values have lost what weights or mask distinguish: an error, or a warning."""
        for what, weight in batch.weights():
            kind = batch.mask_kind if what == "mask" else None
            if _fits(label, what, weight, values, batch) or kind == "void":
                continue
            message = (
                f"Component '{label}' cannot honour the {what} of shape "
                f"{tuple(weight.shape)}: it has already reduced what they distinguish and "
                f"returns values of shape {tuple(values.shape)}. Return one value for each weight"
            )
            if kind == "labels":
                raise ValueError(f"{message}, or wrap another loss. Received: {self.loss!r}")
            if what == "sample_weight" and len(values.shape):
                raise ValueError(checks.too_fine(label, weight, values))
            if imposed:
                raise ValueError(f"{message}. Received: a reduction imposed on all components")
            self._warn(label, what, f"{message}; until then it counts unweighted.")

    def _warn(self, label, what, message):
        """Once for each component and what it is about."""
        if (label, what) not in self._warned and observed() is None:
            self._warned.add((label, what))
            warnings.warn(message, stacklevel=2)

    def _scale_scalar(self, value, batch):
        """A number for a replica's part of the batch, as its contribution to the whole batch.

        It is taken for a mean, but where a loss that is called whole has the reduction "sum".
        """
        if batch.sample_weight is not None and not len(batch.sample_weight.shape):
            value = value * ops.cast(batch.sample_weight, value.dtype)
        if batch.replicas > 1 and not (self.opaque and self.loss.reduction == "sum"):
            value = value * ops.cast(batch.share, value.dtype)
        if batch.size:
            return value
        # A mean of no samples is NaN, and contributes 0.
        empty = ops.equal(batch.count, 0)
        return ops.where(empty, ops.zeros_like(value), value)


def _call_of(loss):
    """The `call` that a loss has: that of its class, or one of its own."""
    return vars(loss).get("call", type(loss).call) if hasattr(type(loss), "call") else None


def _signature(batch):
    """What all checks of data without weights depend on; None for structures of arrays."""
    y_true, y_pred = batch.y_true, batch.y_pred
    if not hasattr(y_true, "dtype") or not hasattr(y_pred, "dtype"):
        return None
    return y_true.shape, y_true.dtype, y_pred.shape, y_pred.dtype, batch.channels


def _shape(tensor):
    single = tensor is not None and not keras.tree.is_nested(tensor)
    return tuple(tensor.shape) if single else None


def _fits(label, what, weight, values, batch):
    if what == "mask" and batch.mask_kind == "void":
        return fit_from_left(weight, values) is not None  # no error where the sizes differ
    return not len(weight.shape) or fits(label, what, weight, values)
