"""Embeddings compared with proxies: one learned vector for each class."""

from collections.abc import Sequence
from typing import Any, Unpack

import keras
from keras import ops

from combined_losses._backend import backend
from combined_losses._core.batch import Batch
from combined_losses._core.checks import are_finite, as_array, check_number, is_integer
from combined_losses._core.keras_types import LossArguments, Reduction
from combined_losses._core.traits import Traits
from combined_losses._numerics.arrays import Dtype, Tensor
from combined_losses._numerics.floats import bounded, div, logsumexp
from combined_losses.losses.embeddings.learning import OfLearned, learned_variable
from combined_losses.losses.embeddings.measures import normalised
from combined_losses.losses.embeddings.pairs import (
    LARGEST_NUMBER,
    LabelledLoss,
    check_labelled,
    largest_known,
)

__all__ = ["ProxyAnchor"]


@keras.saving.register_keras_serializable("combined_losses")
class ProxyAnchor(OfLearned):
    """Samples gathered around a learned vector of their class, away from those of all others.

    With s the cosine of a sample and a proxy: `1/P sum_{c present} log(1 + sum_{y = c} exp(-scale
    (s - margin))) + 1/num_classes sum_c log(1 + sum_{y != c} exp(scale (s + margin)))`, where P is
    the number of classes in the batch. Use it to learn an embedding from labels of many classes:
    each sample meets all classes in each step, whatever the batch holds, so it trains fast, and
    small batches do.

    The proxies are trained with the model, by its optimizer, in `cl.Model`, `cl.Sequential` and
    `cl.track`; they are saved with it, and shared between replicas. In a loop of your own give
    `loss.trainable_variables` to the optimizer. A plain Keras model would leave them as they are.

    Args:
        num_classes: labels are 0 to `num_classes - 1`; an integer of at least 2.
        dim: the number of features of an embedding, an integer of at least 1.
        margin: how far beyond right angles positives are pulled and negatives pushed, a number.
            Default 0.1.
        scale: how sharply the hard ones are weighed, above 0. Default 32.0.
        proxies: None (default): drawn from a Gaussian, by Keras's seed; or their first values,
            `(num_classes, dim)`.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: `y_pred` embeddings `(batch, dim)`, of any length above 0; `y_true` integer labels
    `(batch,)` or `(batch, 1)`; values `(batch,)`, every one the number of the whole batch, on all
    replicas, of at least 0. Weights of samples multiply their exponentials; a sample of weight 0 is
    left out. A label outside its range, NaN, or a float too large to tell whole numbers apart (2^11
    in float16), makes all values NaN: give unknown labels the weight 0.

    Raises:
        ValueError: if an argument is outside its range, or if an array has another shape.

    Example: both samples are at their proxy, at a right angle to the other one.

    >>> import keras
    >>> import numpy as np
    >>> import combined_losses as cl
    >>> loss = cl.losses.ProxyAnchor(2, 2, margin=0.5, scale=2.0, proxies=[[1.0, 0.0], [0.0, 1.0]])
    >>> value = loss(np.array([0, 1]), np.array([[3.0, 0.0], [0.0, 1.0]]))
    >>> round(float(keras.ops.convert_to_numpy(value)), 4)
    1.6265
    >>> [tuple(proxies.shape) for proxies in loss.trainable_variables]
    [(2, 2)]

    That is `log(1 + exp(-1)) + log(1 + exp(1))`. Limits: the slope by an embedding is proportional
    to one over its length, up to 1e6 at 0; so is that by a proxy. The authors give proxies a
    learning rate 100 times that of the network. Kim et al. 2020, arXiv 2003.13991.
    """

    def __init__(
        self,
        num_classes: int,
        dim: int,
        *,
        margin: float = 0.1,
        scale: float = 32.0,
        proxies: Sequence[Sequence[float]] | None = None,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        owner = "ProxyAnchor"
        for argument, number, least in (("num_classes", num_classes, 2), ("dim", dim, 1)):
            if not is_integer(number) or number < least:
                raise ValueError(
                    f"The argument `{argument}` of {owner} must be an integer of at least {least}. "
                    f"Received: {number!r}"
                )
        check_number(owner, "margin", margin)
        check_number(owner, "scale", scale, minimum=0, exclusive=True)
        self.num_classes = num_classes
        self.dim = dim
        self.margin = margin
        self.scale = scale
        self.proxies = proxies
        first = _first_proxies(proxies, (num_classes, dim))
        policy = keras.dtype_policies.get(dtype or keras.config.floatx())
        own = "float64" if policy.compute_dtype == "float64" else "float32"
        learned = learned_variable("proxies", first, own)
        formula = _OfProxies(learned, margin, scale, dtype=dtype)
        super().__init__(formula, {"proxies": learned}, reduction, name, dtype)

    def see(self, batch: Batch, label: str) -> Batch:
        return batch


class _OfProxies(LabelledLoss):
    """The loss of a batch and of proxies, a variable `(num_classes, dim)`."""

    def __init__(
        self,
        proxies: keras.Variable,
        margin: float,
        scale: float,
        **kwargs: Unpack[LossArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.proxies: Any = proxies
        self.margin = margin
        self.scale = scale

    @property
    def traits(self) -> Traits:
        return super().traits._replace(weighs_batch=True, weighs_rows=True)

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        number, dim = self.proxies.shape
        check_labelled("ProxyAnchor", y_true, y_pred)
        _check_dim(y_pred, dim)
        labels = ops.squeeze(y_true, axis=-1) if len(y_true.shape) == 2 else y_true
        proxies = ops.cast(ops.convert_to_tensor(self.proxies), y_pred.dtype)
        cosines = backend.products(normalised(bounded(y_pred, LARGEST_NUMBER)), normalised(proxies))
        # Not in the dtype of the labels: in int8 the class 256 would be 0.
        wide = ops.cast(labels[:, None], "float32")
        same = ops.logical_and(
            ops.equal(wide, ops.arange(number, dtype="float32")), wide < largest_known(labels)
        )
        cosines, same = backend.global_concat(cosines), backend.global_concat(same)
        known, weight = ops.any(same, axis=-1), None
        if sample_weight is not None:
            weight = backend.global_concat(sample_weight)
            known = ops.logical_or(known, weight <= 0)
        value = ops.where(ops.all(known), self._value(cosines, same, weight), float("nan"))
        return ops.broadcast_to(value, (ops.shape(y_pred)[0],))

    def _value(self, cosines: Tensor, same: Tensor, weight: Tensor | None) -> Tensor:
        """The value of cosines `(samples, classes)`, where `same` says which are of one class."""
        pull = -self.scale * (cosines - self.margin)
        push = self.scale * (cosines + self.margin)
        positive, negative = same, ops.logical_not(same)
        if weight is not None:  # w exp(x) = exp(x + log w)
            counts = weight[:, None] > 0
            log = ops.log(ops.where(counts, weight[:, None], 1.0))
            pull, push = pull + log, push + log
            positive, negative = (ops.logical_and(counts, each) for each in (positive, negative))
        present = ops.cast(ops.any(positive, axis=0), cosines.dtype)
        pulls = div(ops.sum(present * _softplus_of_sum(pull, positive)), ops.sum(present))
        return pulls + ops.mean(_softplus_of_sum(push, negative))


def _softplus_of_sum(logits: Tensor, mask: Tensor) -> Tensor:
    """`log(1 + sum exp(logits))` of each column over a mask; 0 for an empty mask."""
    return ops.softplus(logsumexp(logits, mask, axis=0))


def _first_proxies(given: Any, shape: tuple[int, int]) -> Any:
    """The proxies to begin with; raises if those that are given do not have the shape."""
    if given is None:
        # Of a length of about 1: longer ones would turn less in a step of an optimizer.
        return keras.initializers.RandomNormal(stddev=shape[1] ** -0.5)(shape, dtype="float32")
    array = as_array(given)
    if array.shape != shape or array.dtype.kind not in "iuf" or not are_finite(array):
        raise ValueError(
            "The argument `proxies` of ProxyAnchor must be None, or finite numbers of shape "
            f"(num_classes, dim) = {shape}. Received: {given!r}"
        )
    return array.astype("float64")


def _check_dim(y_pred: Tensor, dim: int) -> None:
    if y_pred.shape[1] not in (dim, None):
        raise ValueError(
            f"ProxyAnchor has proxies of dim={dim} numbers, and embeddings must be as long: give "
            f"it another `dim`. Received: y_pred of shape {tuple(y_pred.shape)}"
        )
