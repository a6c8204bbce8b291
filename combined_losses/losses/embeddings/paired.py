"""Embeddings of two kinds of things, such as images and texts, of which each has its partner."""

import math
from typing import Any, Unpack

import keras
import numpy as np
from keras import ops

from combined_losses._backend import backend, keras_private
from combined_losses._core.batch import Batch
from combined_losses._core.checks import check_flag, check_number
from combined_losses._core.keras_types import LossArguments, Reduction
from combined_losses._core.loss import Loss
from combined_losses._numerics.arrays import Dtype, Tensor
from combined_losses._numerics.floats import bounded, logsumexp, over_axes
from combined_losses.losses.embeddings.learning import OfLearned, learned_variable
from combined_losses.losses.embeddings.measures import normalised
from combined_losses.losses.embeddings.outputs import counts_of, of_two_outputs
from combined_losses.losses.embeddings.pairs import LARGEST_NUMBER

__all__ = ["PairedContrastive"]

_LARGEST_SCALE = 100.0  # of a learned temperature: 1 / T


@keras.saving.register_keras_serializable("combined_losses")
class PairedContrastive(OfLearned):
    """Partners recognised among all of a batch, in both directions: the loss of CLIP.

    With `s_ij` the cosine of the embeddings `y_i` and `p_j` divided by the temperature, the value
    of the pair i is `(logsumexp_j s_ij + logsumexp_j s_ji) / 2 - s_ii`: the mean of two cross-
    entropies, of finding the p of a y, and the y of a p. Use it to bring two kinds of things into
    one space, such as images and texts, where row i of one belongs to row i of the other. The
    squared error between them is least where all embeddings are equal.

    Name both outputs of the model, `OnOutput(PairedContrastive(), ("image", "text"))`; both then
    have gradients, and `fit` needs no `y`. Or give embeddings that are fixed as `y_true`.

    Args:
        temperature: above 0, with `learn_temperature=True` at least 0.01. Default 0.07; with a
            lower one only the most similar others matter.
        learn_temperature: whether the temperature is trained with the model, from `temperature` on:
            it is `exp(-t)`, where t is a variable, and stays at least 0.01. Default False.
        reduction, name, dtype: as in `combined_losses.losses.Loss`.

    Shapes: two outputs, or `y_true` and `y_pred`, `(batch, features)`, of any length above 0;
    values `(batch,)`, of at least 0. A pair of weight 0 is left out of all sums; other weights act
    on pairs. Two pairs that are alike count as different: let each batch hold a thing once.

    What is learned is trained, saved and shared between replicas in `cl.Model`, `cl.Sequential` and
    `cl.track`; in a loop of your own give `loss.trainable_variables` to the optimizer.

    Raises:
        ValueError: if an argument is outside its range, if there are not two arrays, or if their
            shapes differ.

    Example: the second embedding of each pair is the first one, twice as long.

    >>> import numpy as np
    >>> import combined_losses as cl
    >>> embeddings = np.array([[1.0, 0.0], [0.0, 1.0]])
    >>> loss = cl.losses.PairedContrastive(temperature=0.5)
    >>> round(float(loss(embeddings, 2 * embeddings)), 4)  # log(1 + exp(-2))
    0.1269

    Limits: if all embeddings are equal, the value is `log(batch)`, and the gradient is 0. A single
    pair has 0. The slope is proportional to one over the length of an embedding, up to 1e6 at 0.
    Radford et al. 2021, arXiv 2103.00020.
    """

    needs_target = False  # it may be given two outputs instead

    def __init__(
        self,
        temperature: float = 0.07,
        *,
        learn_temperature: bool = False,
        reduction: Reduction = "sum_over_batch_size",
        name: str | None = None,
        dtype: Dtype = None,
    ) -> None:
        owner = "PairedContrastive"
        check_flag(owner, "learn_temperature", learn_temperature)
        check_number(owner, "temperature", temperature, minimum=0, exclusive=True)
        if learn_temperature:
            least = 1 / _LARGEST_SCALE
            check_number(owner, "temperature", temperature, minimum=least, why="1/T is at most 100")
        self.temperature = temperature
        self.learn_temperature = learn_temperature
        learned = {}
        if learn_temperature:
            start = min(-math.log(temperature), float(_LARGEST_LOG))
            learned["log_scale"] = learned_variable("log_scale", start, "float32")
            # A clip in the formula is not enough: beyond the limit its gradient is 0.
            keras_private.constrain(learned["log_scale"], _AtMost())
        formula = _Match(temperature, learned.get("log_scale"), dtype=dtype)
        super().__init__(formula, learned, reduction, name, dtype)

    def see(self, batch: Batch, label: str) -> Batch:
        return of_two_outputs(self, batch, label)


_LARGEST_LOG = np.float32(math.log(_LARGEST_SCALE))


class _AtMost(keras.constraints.Constraint):
    def __call__(self, w: Tensor) -> Tensor:
        return ops.minimum(w, _LARGEST_LOG)


class _Match(Loss):
    """The loss of two arrays.

    Args:
        temperature: as in `PairedContrastive`.
        log_scale: the logarithm of one over the temperature, if that is learned; else None.
    """

    couples_batch = True
    neutral_target = 1.0

    def __init__(
        self,
        temperature: float,
        log_scale: keras.Variable | None,
        **kwargs: Unpack[LossArguments],
    ) -> None:
        super().__init__(**kwargs)
        self.temperature = temperature
        self.log_scale: Any = log_scale

    def call(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        x, z = (normalised(bounded(a, LARGEST_NUMBER)) for a in (y_true, y_pred))
        all_x, all_z = backend.global_concat(x), backend.global_concat(z)
        counts = counts_of(sample_weight)
        counts = None if counts is None else backend.global_concat(counts)
        scale = self._scale(x)
        to_z = backend.products(x, all_z) * scale
        if all_x is x:
            own, to_x = ops.diagonal(to_z), ops.transpose(to_z)
            return _half_entropy(to_z, counts, own) + _half_entropy(to_x, counts, own)
        to_x = backend.products(z, all_x) * scale
        own = self._own(to_z), self._own(to_x)
        return _half_entropy(to_z, counts, own[0]) + _half_entropy(to_x, counts, own[1])

    @staticmethod
    def _own(logits: Tensor) -> Tensor:
        """The logit of each anchor with its partner, among those of all replicas."""
        size, number = ops.shape(logits)
        places = backend.global_offset(size) + ops.arange(size, dtype="int32")
        is_own = ops.equal(places[:, None], ops.arange(number, dtype="int32"))
        return ops.sum(ops.where(is_own, logits, 0.0), axis=-1)

    def _scale(self, like: Tensor) -> Tensor | float:
        if self.log_scale is None:
            return 1 / self.temperature
        log_scale = ops.convert_to_tensor(self.log_scale)
        # Optimizers that are not Keras's know no constraint. Beyond the limit the slope is that at
        # the limit: with the slope 0 the variable would stay there for ever.
        log_scale = log_scale - ops.stop_gradient(ops.relu(log_scale - _LARGEST_LOG))
        return ops.cast(ops.exp(log_scale), like.dtype)


def _half_entropy(logits: Tensor, counts: Tensor | None, own: Tensor) -> Tensor:
    """Half the cross-entropy of each row, whose right logit is `own`, over columns that count."""
    if counts is None:
        return (over_axes(ops.logsumexp, logits) - own) / 2
    return (logsumexp(logits, counts) - own) / 2
